"""What the learner adds around RLlib's loss: minibatches, the gradient check, the curiosity loss."""

import numpy as np
import pytest
import torch
from probes import learner_of
from ray.rllib.policy.sample_batch import SampleBatch

from marl_tune.learner import NonFiniteGradientError, minibatches


def rows(n, **more):
    return SampleBatch({"actions": torch.arange(n), **more})


@pytest.mark.parametrize(
    ("n", "size", "epochs", "expected"), [(20000, 2000, 4, 40), (18000, 1500, 4, 48), (10, 20, 2, 2), (105, 10, 1, 10)]
)
def test_as_many_minibatches_as_the_arithmetic_says(n, size, epochs, expected):
    seen = [b.policy_batches["m"]["actions"] for b in minibatches({"m": rows(n)}, epochs, size, shuffle=True)]
    assert len(seen) == expected
    per_epoch = expected // epochs
    for epoch in range(epochs):
        parts = seen[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert torch.equal(torch.cat(parts).sort().values, torch.arange(n)), "each row once an epoch"
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_every_epoch_is_shuffled_anew():
    one, two = minibatches({"m": rows(100)}, 2, None, shuffle=True)
    assert not torch.equal(one.policy_batches["m"]["actions"], two.policy_batches["m"]["actions"])


def test_modules_with_fewer_rows_are_not_cut_smaller():
    batches = list(minibatches({"many": rows(100), "few": rows(20)}, 3, 10, shuffle=True))
    sizes = {
        m: [len(b.policy_batches[m]["actions"]) for b in batches if m in b.policy_batches] for m in ("many", "few")
    }
    assert sizes == {"many": [10] * 30, "few": [10] * 6}


def test_sequences_stay_whole_and_count_their_steps():
    mask = torch.zeros(40, 5, dtype=torch.bool)
    mask[:, :4] = True
    batch = rows(40, loss_mask=mask, obs={"a": torch.arange(40)})
    seen = [b.policy_batches["m"] for b in minibatches({"m": batch}, 1, 16, shuffle=True)]
    assert [int(b["loss_mask"].sum()) for b in seen] == [16] * 10
    assert all(torch.equal(b["obs"]["a"], b["actions"]) for b in seen)


def test_several_learners_step_equally_often():
    assert len(list(minibatches({"m": rows(37)}, 2, 10, shuffle=True, num_total=11))) == 11


def test_a_gradient_that_is_not_finite_is_named(trial):
    one = trial()
    one.train()
    learner = learner_of(one)
    before = {k: v.clone() for k, v in learner.module["shared"].state_dict().items()}
    gradients = {p: torch.zeros_like(learner._params[p]) for p in learner._params}
    broken = next(p for name, p in learner.module["shared"].named_parameters() if name == "value_head.weight")
    gradients[broken][0, 0] = np.nan
    with pytest.raises(NonFiniteGradientError, match=r"shared\.value_head\.weight$"):
        learner.apply_gradients(gradients)
    assert all(torch.equal(before[k], v) for k, v in learner.module["shared"].state_dict().items())


@pytest.mark.parametrize("module", ["mlp", "gru", "plasticity", "pheromone_attention", "curiosity", "ant_colony"])
def test_the_ratio_of_the_first_minibatch_is_one(trial, monkeypatch, module):
    """What was sampled and what is learned from are the same policy, whatever state it has."""
    from marl_tune.learner import MarlPPOLearner

    ratios = []
    loss = MarlPPOLearner.compute_loss_for_module

    def watched(self, *, module_id, config, batch, fwd_out):
        dist = self.module[module_id].unwrapped().get_train_action_dist_cls().from_logits(fwd_out["action_dist_inputs"])
        ratio = (dist.logp(batch["actions"]) - batch["action_logp"]).exp()
        ratios.append(ratio[batch["loss_mask"]] if "loss_mask" in batch else ratio)
        return loss(self, module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)

    monkeypatch.setattr(MarlPPOLearner, "compute_loss_for_module", watched)
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
