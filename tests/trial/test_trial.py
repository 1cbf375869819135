"""The Trainable without Tune around it: settings in place, checkpoints, pauses, clones."""

import copy
import json

import numpy as np
import pytest
import torch
from probes import learner_of as learner

from marl_tune import envs
from marl_tune.trial.living_algorithm import only_live_changes
from marl_tune.trial.trial import trial_number

pytestmark = pytest.mark.usefixtures("ray_session")


def weights(trial):
    return {k: v.clone() for k, v in learner(trial).module["shared"].state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_result_has_the_contracts_names(trial):
    one = trial()
    first, second = one.train(), one.train()
    assert second["agent_steps"] == 2 * first["agent_steps"] == 800
    assert second["env_steps"] == 2 * first["env_steps"] == 200
    assert second["return_sum_team"] == pytest.approx(4 * second["return_mean_agent"])
    assert second["env_runners"]["episode_return_mean"] == pytest.approx(second["return_sum_team"])
    assert {"food_collected", "food_collected_fraction", "pheromone_coverage", "ant_efficiency"} <= set(
        second["env_runners"]
    )
    assert {"policy_loss", "vf_loss", "entropy"} <= set(second["learners"]["shared"])


def test_no_episode_yet_is_nan(trial):
    assert np.isnan(trial(None, "env.max_steps=500").train()["return_mean_agent"])


def test_the_seed_makes_the_trial(trial):
    a, b, c = trial({"seed": 3}), trial({"seed": 3}), trial({"seed": 4})
    results = [[one.train()["learners"]["shared"]["policy_loss"] for _ in range(2)] for one in (a,)]
    for one in (b, c):
        results.append([one.train()["learners"]["shared"]["policy_loss"] for _ in range(2)])
    assert results[0] == results[1] != results[2]


def test_siblings_have_different_seeds():
    assert [trial_number(name) for name in ("a1b2c_00000", "a1b2c_00017", "lone")] == [0, 17, 0]


@pytest.mark.parametrize("module", ["mlp", "gru"])
def test_a_paused_trial_goes_on_exactly(trial, tmp_path, module):
    """Save, reset to other settings, train, come back: the next iteration is the one that was due."""
    words = (f"module={module}",)
    one = trial({"algorithm.lr": 1e-3}, *words)
    one.train()
    one.save(str(tmp_path / "pause"))
    expected = one.train()
    after = weights(one)
    one.reset({"algorithm.lr": 5e-3})
    one.train()
    one.reset({"algorithm.lr": 1e-3})
    one.restore(str(tmp_path / "pause"))
    again = one.train()
    assert again["learners"]["shared"]["policy_loss"] == expected["learners"]["shared"]["policy_loss"]
    assert equal(weights(one), after)
    assert again["agent_steps"] == expected["agent_steps"]


def test_a_reset_without_a_checkpoint_is_a_new_trial(trial):
    one = trial({"seed": 1})
    first = one.train()
    one.train()
    one.reset({"seed": 1})
    assert one.train()["learners"]["shared"]["policy_loss"] == first["learners"]["shared"]["policy_loss"]


def test_a_new_structure_is_built_in_the_same_process(trial):
    one = trial()
    one.train()
    before = one.algorithm
    one.reset({"module.hidden_dims": [16]})
    one.train()
    assert one.algorithm is not before
    assert learner(one).module["shared"].model_config["hidden_dims"] == [16]


def test_a_clone_keeps_the_living_algorithm(trial, tmp_path):
    donor, clone = trial({"algorithm.lr": 1e-3}, number=0), trial({"algorithm.lr": 2e-3}, number=1)
    donor.train()
    clone.train()
    donor.save(str(tmp_path / "donor"))
    living = clone.algorithm
    clone.reset({"algorithm.lr": 3e-3})
    clone.restore(str(tmp_path / "donor"))
    assert clone.algorithm is living
    assert equal(weights(clone), weights(donor))
    assert clone.agent_steps == donor.agent_steps


ANNEALED = ("stop.iterations=4", "stop.agent_steps=null", "algorithm.lr=1e-3", "algorithm.entropy_coeff=0.2")


def test_lr_and_entropy_are_annealed_to_the_end_of_the_trial(trial, tmp_path):
    factors = ("algorithm.lr_end_factor=0.0", "algorithm.entropy_end_factor=0.5")
    one = trial(None, *ANNEALED, *factors)
    told = []
    for iteration in range(4):
        if iteration == 2:  # nothing of it is lost in a pause
            one.save(str(tmp_path / "pause"))
            one.reset({})
            one.restore(str(tmp_path / "pause"))
        result = one.train()["learners"]["shared"]
        told.append((result["default_optimizer_learning_rate"], result["curr_entropy_coeff"]))
    assert told == [pytest.approx(pair) for pair in ((1e-3, 0.2), (7.5e-4, 0.175), (5e-4, 0.15), (2.5e-4, 0.125))]
    used = {group["lr"] for optimizer in learner(one)._named_optimizers.values() for group in optimizer.param_groups}
    assert max(used) == min(used) == pytest.approx(2.5e-4)


def test_annealing_ends_where_a_clone_is_told_not_to(trial):
    one = trial({"algorithm.lr_end_factor": 0.0}, *ANNEALED)
    one.train()
    one.train()
    one.reset({"algorithm.lr_end_factor": 1.0})
    assert one.train()["learners"]["shared"]["default_optimizer_learning_rate"] == pytest.approx(1e-3)


def test_only_live_changes_keep_an_algorithm(tiny):
    base = tiny()

    def changed(section, **values):
        other = copy.deepcopy(base)
        for key, value in values.items():
            setattr(getattr(other, section), key, value)
        return other

    assert only_live_changes(base, changed("algorithm", lr=0.5, num_epochs=7, gamma=0.5))
    assert only_live_changes(base, changed("env", pheromone_decay=0.5))
    assert not only_live_changes(base, changed("env", n_agents=9))
    assert not only_live_changes(base, changed("module", hidden_dims=[3]))
    assert not only_live_changes(base, changed("cluster", num_envs_per_env_runner=7))


def test_world_settings_change_in_place(trial, tmp_path):
    donor, clone = trial(number=0), trial({"env.pheromone_decay": 0.9}, number=1)
    donor.train()
    clone.train()
    donor.save(str(tmp_path / "donor"))
    clone.reset({"env.pheromone_decay": 0.5})
    clone.restore(str(tmp_path / "donor"))
    clone.train()
    assert clone.algorithm.env_runner.env.config.pheromone_decay == 0.5


def test_a_checkpoint_says_what_it_is(trial, tmp_path):
    one = trial({"algorithm.lr": 2e-3})
    one.train()
    one.save(str(tmp_path / "here"))
    saved = json.loads((tmp_path / "here" / "config.json").read_text())
    assert saved["algorithm"]["lr"] == 2e-3
    assert (tmp_path / "here" / "policy.pt").stat().st_size < 2_000_000


def test_rllibs_runner_can_take_the_batched_ones_place(trial, tmp_path):
    one = trial(None, "cluster.rollout=rllib")
    first, second = one.train(), one.train()
    assert first["agent_steps"] == 400
    assert second["agent_steps"] == 800
    assert -1 < second["return_sum_team"] < 50
    one.save(str(tmp_path / "here"))
    one.reset({"algorithm.lr": 5e-4, "env.pheromone_decay": 0.5})
    one.restore(str(tmp_path / "here"))
    assert one.train()["agent_steps"] == 1200


def test_an_exploit_in_place_builds_no_world(trial, tmp_path, monkeypatch):
    """PBT's exploit, and a curriculum's config, ask for facts of a world that is known already."""
    built, make_world = [], envs.make_world

    def counted(config, num_envs):
        built.append(config)
        return make_world(config, num_envs)

    donor, clone = trial({"algorithm.lr": 1e-3}, number=0), trial({"algorithm.lr": 2e-3}, number=1)
    donor.train()
    clone.train()
    donor.save(str(tmp_path / "donor"))
    monkeypatch.setattr(envs, "make_world", counted)
    clone.reset({"algorithm.lr": 3e-3})
    clone.restore(str(tmp_path / "donor"))
    assert built == []
    clone.reset({"algorithm.lr": 3e-3, "env.pheromone_decay": 0.123})
    clone.restore(str(tmp_path / "donor"))
    assert len(built) == 2, "new settings of the world: once for its facts, once for the runner"
