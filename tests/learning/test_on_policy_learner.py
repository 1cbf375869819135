"""What the learner adds around RLlib's loss: minibatches, the gradient check, the curiosity loss."""

import numpy as np
import pytest
import torch
from probes import learner_of

from marl_tune.algorithms.ppo_loss import ppo_loss
from marl_tune.learning.gradients import GradientGroup, NonFiniteGradientError, clip_and_check
from marl_tune.learning.minibatches import minibatches


def rows(n, **more):
    return {"actions": torch.arange(n), **more}


@pytest.mark.parametrize(
    ("n", "size", "epochs", "expected"), [(20000, 2000, 4, 40), (18000, 1500, 4, 48), (10, 20, 2, 2), (105, 10, 1, 10)]
)
def test_as_many_minibatches_as_the_arithmetic_says(n, size, epochs, expected):
    seen = [b["m"]["actions"] for b, _ in minibatches({"m": rows(n)}, epochs, size, shuffle=True)]
    assert len(seen) == expected
    per_epoch = expected // epochs
    for epoch in range(epochs):
        parts = seen[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert torch.equal(torch.cat(parts).sort().values, torch.arange(n)), "each row once an epoch"
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_every_epoch_is_shuffled_anew():
    (one, _), (two, _) = minibatches({"m": rows(100)}, 2, None, shuffle=True)
    assert not torch.equal(one["m"]["actions"], two["m"]["actions"])


def test_modules_with_fewer_rows_are_not_cut_smaller():
    batches = list(minibatches({"many": rows(100), "few": rows(20)}, 3, 10, shuffle=True))
    sizes = {m: [len(b[m]["actions"]) for b, _ in batches if m in b] for m in ("many", "few")}
    assert sizes == {"many": [10] * 30, "few": [10] * 6}
    last = {m: [number for number, (_, of) in enumerate(batches) if m in of] for m in ("many", "few")}
    assert last == {"many": [29], "few": [21]}


def test_sequences_stay_whole_and_count_their_steps():
    mask = torch.zeros(40, 5, dtype=torch.bool)
    mask[:, :4] = True
    batch = rows(40, loss_mask=mask, obs={"a": torch.arange(40)})
    seen = [b["m"] for b, _ in minibatches({"m": batch}, 1, 16, shuffle=True)]
    assert [int(b["loss_mask"].sum()) for b in seen] == [16] * 10
    assert all(torch.equal(b["obs"]["a"], b["actions"]) for b in seen)


def test_several_learners_step_equally_often():
    assert len(list(minibatches({"m": rows(37)}, 2, 10, shuffle=True, num_total=11))) == 11


def test_a_gradient_that_is_not_finite_is_named(trial):
    one = trial()
    one.train()
    learner = learner_of(one)
    before = {k: v.clone() for k, v in learner.module["shared"].state_dict().items()}
    head = learner.module["shared"].value_head.weight
    hook = head.register_hook(lambda gradient: torch.full_like(gradient, np.nan))
    with pytest.raises(NonFiniteGradientError, match=r"non-finite gradient in shared\.value_head\.weight$"):
        one.train()
    hook.remove()
    assert all(torch.equal(before[k], v) for k, v in learner.module["shared"].state_dict().items())


@pytest.mark.parametrize("by", ["global_norm", "norm", "value"])
def test_gradients_are_limited_as_rllib_limits_them(by):
    from ray.rllib.utils.torch_utils import clip_gradients

    torch.manual_seed(0)
    parameters = [
        torch.nn.Parameter(torch.zeros(4, 3)),
        torch.nn.Parameter(torch.zeros(5)),
        torch.nn.Parameter(torch.zeros(2)),
    ]
    for parameter, size in zip(parameters, (3.0, 0.01, 0.0), strict=True):
        parameter.grad = size * torch.randn_like(parameter)
    parameters.append(torch.nn.Parameter(torch.zeros(1)))  # has no gradient
    expected = {i: p.grad.clone() for i, p in enumerate(parameters[:3])}
    norm = torch.cat([g.flatten() for g in expected.values()]).norm()
    clip_gradients(expected, grad_clip=0.5, grad_clip_by=by)
    (total,) = clip_and_check([GradientGroup(parameters, 0.5, by)], str)
    assert torch.allclose(total, norm)
    for i, gradient in expected.items():
        assert torch.allclose(parameters[i].grad, gradient, atol=1e-6)


@pytest.mark.parametrize("module", ["mlp", "gru", "plasticity", "pheromone_attention", "curiosity", "ant_colony"])
def test_the_ratio_of_the_first_minibatch_is_one(trial, monkeypatch, module):
    """What was sampled and what is learned from are the same policy, whatever state it has."""
    ratios = []

    def watched(inputs, values, batch, dist_class, settings, with_stats):
        ratio = (dist_class.from_logits(inputs).logp(batch["actions"]) - batch["action_logp"]).exp()
        ratios.append(ratio[batch["loss_mask"]] if "loss_mask" in batch else ratio)
        return ppo_loss(inputs, values, batch, dist_class, settings, with_stats)

    monkeypatch.setattr("marl_tune.algorithms.ppo.ppo_loss", watched)
    one = trial(None, f"module={module}", *(["module.max_seq_len=7"] if module in ("gru", "plasticity") else []))
    for _ in range(2):  # the second fragment begins inside episodes
        ratios.clear()
        one.train()
        assert torch.allclose(ratios[0], torch.ones_like(ratios[0]), atol=2e-6)
    assert not torch.allclose(ratios[-1], torch.ones_like(ratios[-1]), atol=1e-3), "nothing was learned"


def test_intrinsic_rewards_are_logged_apart_and_do_not_touch_the_score(trial):
    plain = trial(None, "module=curiosity", "module.intrinsic_weight=0.0").train()
    curious = trial(None, "module=curiosity", "module.intrinsic_weight=5.0").train()
    assert plain["learners"]["shared"]["intrinsic_reward_mean"] == 0
    assert curious["learners"]["shared"]["intrinsic_reward_mean"] > 0.1
    assert curious["env_runners"]["intrinsic_return_mean"] == pytest.approx(
        curious["learners"]["shared"]["intrinsic_reward_mean"] * curious["env_runners"]["episode_len_mean"]
    )
    assert curious["return_sum_team"] == plain["return_sum_team"]
    assert {"icm_loss", "icm_inverse_loss", "icm_forward_loss"} <= set(curious["learners"]["shared"])


def test_a_large_curiosity_loss_does_not_shrink_the_policys_steps(trial):
    """Gradients are clipped apart: with and without a huge ICM loss the actor learns the same."""
    actors = []
    for weight in ("0.0", "1000.0"):
        words = ("module=curiosity", "module.intrinsic_weight=0.0", f"module.icm_loss_weight={weight}")
        one = trial(None, *words, "algorithm.grad_clip=0.1")
        one.train()
        state = learner_of(one).module["shared"].state_dict()
        actors.append({k: v.clone() for k, v in state.items() if not k.startswith("icm")})
    assert all(torch.equal(actors[0][k], actors[1][k]) for k in actors[0])


def test_bfloat16_learns_nearly_the_same_with_float32_weights(trial):
    exact, mixed = trial(), trial(None, "cluster.precision=bfloat16")
    losses = [one.train()["learners"]["shared"]["vf_loss"] for one in (exact, mixed)]
    assert losses[0] != losses[1], "nothing was rounded"
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert {p.dtype for p in learner_of(mixed).module["shared"].parameters()} == {torch.float32}


@pytest.mark.slow  # a minute of compiling
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile imports
def test_a_compiled_learner_learns_the_same(trial):
    losses, forwards = [], []
    for compiled in ("false", "true"):
        one = trial(None, f"cluster.torch_compile={compiled}")
        losses += [one.train()["learners"]["shared"]["total_loss"] for _ in range(2)]
        forwards.append(learner_of(one).module["shared"]._forward_train)
    assert losses[2:] == pytest.approx(losses[:2], rel=1e-3)
    assert [hasattr(forward, "_torchdynamo_orig_callable") for forward in forwards] == [False, True]
