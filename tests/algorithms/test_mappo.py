"""MAPPO and the shared critic in whole trials: training, checkpoints, PBT clones, evaluation, and what is refused."""

import numpy as np
import pytest
import torch
from probes import learner_of

import marl_tune.learning.on_policy_learner as learner_module
from marl_tune.envs.world import World
from marl_tune.evaluate import evaluate
from marl_tune.learning.adam import Adam
from marl_tune.learning.minibatches import minibatches
from marl_tune.validation.validate import validate

SHARED, MAPPO = "sharing=shared_critic", ("algorithm=mappo", "sharing=shared_critic")


def weights(trial):
    return {
        f"{module_id}.{name}": value.clone()
        for module_id, module in learner_of(trial).module.items()
        for name, value in module.unwrapped().state_dict().items()
    }


def moments(trial):
    return {name: o.state_dict()["state"] for name, o in learner_of(trial)._named_optimizers.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "words",
    [
        (SHARED,),
        (SHARED, "sharing.actors=independent"),
        (*MAPPO, "module=gru", "module.max_seq_len=6"),
        (*MAPPO, "module=ant_colony"),
        (SHARED, "algorithm.use_critic=false"),
    ],
    ids=" ".join,
)
def test_every_kind_of_actor_learns_beside_the_critic(trial, words):
    one = trial(None, *words)
    before = None
    for _ in range(2):
        result = one.train()
        before, after = before or weights(one), weights(one)
    learners = result["learners"]
    acting = {"ant_0", "ant_1", "ant_2", "ant_3"} if "sharing.actors=independent" in words else {"shared"}
    uses_critic = "algorithm.use_critic=false" not in words
    for module_id in acting:
        assert "vf_loss" not in learners[module_id]
        assert not torch.equal(before[f"{module_id}.policy_head.weight"], after[f"{module_id}.policy_head.weight"])
    assert ("vf_loss" in learners.get("critic", {})) == uses_critic
    assert torch.equal(before["critic.value_head.weight"], after["critic.value_head.weight"]) != uses_critic
    optimizers = {name for name in learner_of(one)._named_optimizers if "curiosity" not in name}
    assert optimizers == {f"{module_id}_default_optimizer" for module_id in acting | {"critic"}}


def test_the_critic_is_trained_whichever_actors_are(trial):
    one = trial(None, *MAPPO)
    one.train()
    before = weights(one)
    learner_of(one).config = learner_of(one).config.copy(copy_frozen=False).multi_agent(policies_to_train=[])
    one.train()
    after = weights(one)
    assert same(*({k: v for k, v in each.items() if k.startswith("shared")} for each in (before, after)))
    assert not torch.equal(before["critic.value_head.weight"], after["critic.value_head.weight"])


@pytest.mark.parametrize("module", ["mlp", "curiosity"])
def test_a_resumed_trial_goes_on_bit_by_bit(trial, tmp_path, module):
    one = trial(None, *MAPPO, f"module={module}")
    one.train()
    one.save(str(tmp_path / "here"))
    saved = weights(one)
    expected = one.train()
    same_trial = trial(None, *MAPPO, f"module={module}")
    same_trial.restore(str(tmp_path / "here"))
    assert same(weights(same_trial), saved), "running moments are float64"
    again = same_trial.train()
    assert again["learners"]["critic"]["vf_loss"] == expected["learners"]["critic"]["vf_loss"]
    assert same(weights(one), weights(same_trial))


def test_a_clone_takes_the_donors_critic_and_keeps_its_own_settings(trial, tmp_path, monkeypatch):
    """On the first update after an exploit: the donor's weights, Adam's moments and running moments; own settings."""
    donor = trial({"algorithm.critic_lr": 1e-3}, *MAPPO, number=0)
    clone = trial({"algorithm.critic_lr": 2e-3}, *MAPPO, number=1)
    donor.train()
    clone.train()
    donor.save(str(tmp_path / "donor"))
    living = clone.algorithm
    own = {
        "algorithm.critic_lr": 5e-3,
        "algorithm.huber_delta": 3.0,
        "algorithm.clip_param": 0.3,
        "algorithm.vf_loss_coeff": 0.8,
    }
    clone.reset(own)
    clone.restore(str(tmp_path / "donor"))
    assert clone.algorithm is living, "the exploit was not in place"
    assert same(weights(donor), weights(clone))
    first, second = moments(donor), moments(clone)
    assert all(
        torch.equal(first[name][i]["exp_avg"], second[name][i]["exp_avg"]) for name in first for i in first[name]
    )
    seen, rates = [], []
    loss, adam = learner_module.critic_loss, Adam.step

    def watched(outputs, batch, settings, vf_loss_coeff, vf_clip_param, with_stats):
        seen.append((settings, vf_loss_coeff))
        return loss(outputs, batch, settings, vf_loss_coeff, vf_clip_param, with_stats)

    critics = learner_of(clone)._named_optimizers["critic_default_optimizer"]

    def watched_adam(self, *args, **kwargs):
        rates.append((self is critics, self.param_groups[0]["lr"]))
        return adam(self, *args, **kwargs)

    monkeypatch.setattr(learner_module, "critic_loss", watched)
    monkeypatch.setattr(Adam, "step", watched_adam)
    clone.train()
    assert len(seen) == 400 // 100, "as many steps as the actors'"
    for settings, coefficient in seen:
        assert (settings.huber_delta, settings.clip_param, settings.lr, coefficient) == (3.0, 0.3, 5e-3, 0.8)
    assert {rate for is_critic, rate in rates if is_critic} == {5e-3}
    assert {rate for is_critic, rate in rates if not is_critic} == {1e-3}


def test_normalisation_is_live_and_values_survive_it(trial, tmp_path):
    donor, clone = trial(None, *MAPPO, number=0), trial(None, *MAPPO, "algorithm.clip_values=false", number=1)
    donor.train()
    clone.train()
    donor.save(str(tmp_path / "donor"))
    clone.reset({"algorithm.normalise_values": False})
    clone.restore(str(tmp_path / "donor"))
    critics = [learner_of(one).module["critic"].unwrapped() for one in (donor, clone)]
    states = torch.rand(6, 36)
    with torch.no_grad():
        before = critics[0].compute_values({"obs": states})
        assert learner_of(clone)._central_critic() is critics[1]
        assert not critics[1].normalised
        assert torch.allclose(critics[1].compute_values({"obs": states}), before, atol=1e-5)
    assert np.isfinite(clone.train()["learners"]["critic"]["vf_loss"])


def test_a_checkpoint_is_played_without_a_state_or_a_critic(trial, tmp_path, monkeypatch):
    one = trial(None, *MAPPO)
    one.train()
    one.save(str(tmp_path / "here"))

    def no_state(self, observations):
        raise AssertionError("asked for the state")

    monkeypatch.setattr(World, "state", no_state)
    played = evaluate(tmp_path / "here", episodes=3, seed=7)
    assert played["episodes"] == 3
    from marl_tune.evaluation.play import load_modules
    from marl_tune.results.checkpoint_files import load_sweep

    modules = load_modules(tmp_path / "here", load_sweep(tmp_path / "here"))
    assert set(modules) == {"shared"}
    saved = weights(one)
    assert all(torch.equal(saved[f"shared.{k}"], v) for k, v in modules["shared"].state_dict().items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algorithm=mappo"], "algorithm=mappo must have sharing=shared_critic.*got sharing=parameter_sharing"),
        ([*MAPPO, "cluster.rollout=rllib"], "cluster.rollout must be batched under sharing=shared_critic"),
        ([SHARED, "sharing.actors=roles"], "sharing.actors must be one of parameter_sharing, independent, got 'roles'"),
        ([*MAPPO, "algorithm.huber_delta=0"], "algorithm.huber_delta must be above 0"),
        ([*MAPPO, "algorithm.critic_lr=-1"], "algorithm.critic_lr must be above 0"),
        (["algorithm.huber_delta=1"], "key 'algorithm.huber_delta' is not known"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny, words, message):
    from marl_tune.config.errors import ConfigError

    with pytest.raises(ConfigError, match=message):
        validate(tiny(*words))


def test_a_critic_of_few_rows_has_a_last_minibatch():
    """Many agents make many agent-steps of few states: no more minibatches than states, and one of them is the last."""
    critic = {"loss_mask": torch.ones(3, 8, dtype=torch.bool), "value_targets": torch.zeros(3, 8)}
    actors = {"actions": torch.zeros(24), "advantages": torch.zeros(24)}
    told = [last for _, last in minibatches({"a": actors, "critic": critic}, 2, 4, shuffle=True)]
    assert [m for last in told for m in sorted(last)] == ["critic", "a"]
