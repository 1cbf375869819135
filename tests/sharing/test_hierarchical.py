"""`sharing=hierarchical`: its settings, its trials, and what they report."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from hierarchy_probes import TURNS, WORLDS
from probes import learner_of

from marl_tune.__main__ import main
from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.config.compose import compose, from_dict, to_dict
from marl_tune.config.errors import ConfigError
from marl_tune.config.overrides import apply
from marl_tune.config.schema.sharing import SharingConfig
from marl_tune.envs.world import agents_per_step
from marl_tune.evaluation import selection
from marl_tune.evaluation.play import evaluate_modules
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.module_specs import build_policy_map, module_configs, module_specs
from marl_tune.sweep.dry_run import plan_lines
from marl_tune.validation.validate import check_trial, validate

ON = ("sharing=hierarchical", "sharing.interval=3")
TEAM = {"manager": "team"}


@pytest.fixture(scope="module")
def base():
    """A tiny sweep with managers, composed once: that takes most of a second."""
    return compose(["+experiment=debug", *ON])[0]


def hierarchy(base, world=None, way=None, **others):
    """The sweep on another world, with other settings of the hierarchy and of other sections."""
    changed = {"sharing": way or {}, **others}
    env = {} if world is None else {"env": WORLDS[world]}
    sections = {name: dataclasses.replace(getattr(base, name), **values) for name, values in changed.items()}
    return dataclasses.replace(base, **sections, **env)


def test_who_acts_by_which_module(base):
    def modules(world, way=None):
        sweep = hierarchy(base, world, {"manager_module": {"hidden_dims": [8]}} | (way or {}))
        with build_world(sweep, 1) as made:
            policy_map = build_policy_map(sweep, made)
        dims = {m: config["hidden_dims"] for m, config in module_configs(sweep, policy_map).items()}
        return dims, {m: len(part.agents) for m, part in policy_map.modules.items()}

    dims, agents = modules("ant_colony")
    assert dims == {"shared": [64, 64], "managers_of_ants": [8]}
    assert agents == {"shared": 3, "managers_of_ants": 3}
    assert modules("ant_colony", TEAM)[1] == {"shared": 3, "manager": 1}
    assert modules("mpe/simple_tag")[1] == {
        "adversary": 3,
        "agent": 1,
        "managers_of_adversary": 3,
        "managers_of_agent": 1,
    }


def test_direction_tokens_are_the_managers_too(base):
    sweep = dataclasses.replace(base, module=compose(["module=pheromone_attention"])[0].module)
    with build_world(sweep, 1) as world:
        specs = module_specs(sweep, build_policy_map(sweep, world)).build()
    assert {module.model_config["tokens"]["indices"][0] for _, module in specs.items()} == {3}


WRONG = [
    ({"interval": 0}, "sharing.interval must be at least 1, got 0"),
    ({"goals": 1}, "sharing.goals must be at least 2, got 1"),
    ({"goal_dim": 2}, "exactly one of sharing.goals and sharing.goal_dim must be set (the other is null), got 4 and 2"),
    ({"goals": None}, "exactly one of sharing.goals and sharing.goal_dim must be set (the other is null)"),
    ({"goals": None, "goal_dim": 0}, "sharing.goal_dim must be at least 1, got 0"),
    ({"manager": "boss"}, "sharing.manager must be one of agent, team, got 'boss'"),
    ({"manager_gamma": 1.1}, "sharing.manager_gamma must be between 0 and 1, got 1.1"),
    ({"manager_module": {"hidden": 3}}, "key 'sharing.manager_module.hidden' is not known"),
    ({"manager_module": {"activation": "step"}}, "sharing.manager_module.activation must be one of"),
    ({"manager_module": {"name": "lstm"}}, "sharing.manager_module.name must be left out"),
    ({"roles": {"x": {"agents": ["*"], "module": {}}}}, "sharing.roles must be empty under sharing=hierarchical"),
    ({"name": "parameter_sharing"}, "key 'sharing.interval' is not known"),
    ({"intervals": 3}, "did you mean 'sharing.interval'?"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=[str(settings) for settings, _ in WRONG])
def test_a_wrong_setting_is_refused(base, settings, message):
    sharing = to_dict(base)["sharing"] | settings
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_trial(from_dict(to_dict(base) | {"sharing": sharing}))


TOGETHER = [
    ({"cluster": {"rollout": "rllib"}}, "cluster.rollout must be batched under sharing=hierarchical"),
    # 5 copies x 14 steps x (4 + 4/3) agents are sampled, of which 5 x 14 x 4 are sure to be there in each iteration.
    ({"algorithm": {"minibatch_size": 301}}, "algorithm.minibatch_size must be at most 300, the steps of the 4 agents"),
    ({"algorithm": {"train_batch_size": 26, "minibatch_size": 9}}, "algorithm.train_batch_size must be at least 27"),
]


@pytest.mark.parametrize(("sections", "message"), TOGETHER, ids=[str(sections) for sections, _ in TOGETHER])
def test_settings_that_do_not_go_together_are_refused(base, sections, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_trial(hierarchy(base, **sections))


@pytest.mark.parametrize("world", TURNS)
def test_the_teams_manager_is_refused_where_nobody_sees_all(base, world):
    with pytest.raises(ConfigError, match="sharing=hierarchical: manager must be agent in a world whose agents take"):
        check_trial(hierarchy(base, world, TEAM))


def test_what_is_typed_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["+experiment=debug", *ON, "env=pettingzoo", "sharing.goal_dim=x"]) == 2
    assert main(["sharing=hierarchical", "+sharing.manager_module.hidden=3"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ")
    assert "key 'sharing.manager_module.hidden' is not known" in second
    assert list(tmp_path.iterdir()) == []


def test_settings_of_the_hierarchy_can_be_searched(base, tiny):
    space = {"sharing.interval": {"choice": [2, 5]}, "sharing.manager_module.hidden_dims": {"choice": [[8], [16]]}}
    sweep = dataclasses.replace(base, space=space)
    validate(sweep)
    trial = apply(sweep, {"sharing.interval": 5, "sharing.manager_module.hidden_dims": [16]})
    assert (trial.sharing.interval, trial.sharing.manager_module) == (5, {"hidden_dims": [16]})
    with pytest.raises(ConfigError, match=r"sharing\.interval must be at least 1, got 0, reached by space\.sharing"):
        validate(dataclasses.replace(base, space={"sharing.interval": {"choice": [0, 5]}}))
    schemes = tiny("search=grid", "+space.sharing.grid=[parameter_sharing,hierarchical]", "+space.algorithm.lr=null")
    validate(schemes)
    assert apply(schemes, {"sharing": "hierarchical"}).sharing.goals == 4


def test_the_plan_counts_that_managers_act_every_k_steps(base):
    sweep = hierarchy(base, None, {"interval": 4}, algorithm={"train_batch_size": 500})
    with build_world(sweep, 1) as world:
        assert agents_per_step(world) == 4 + 4 / 4
    (line,) = (line for line in plan_lines(sweep) if line.startswith("batch"))
    assert "5 copies x 20 steps x 5 agents = 500 agent-steps an iteration" in line
    assert agents_per_step(build_world(hierarchy(base, "ant_colony", TEAM), 1)) == 3 + 1 / 3
    assert agents_per_step(build_world(hierarchy(base, "tictactoe"), 1)) == 1 + 1 / 3


@pytest.mark.usefixtures("ray_session")
def test_both_learn_and_only_the_workers_returns_are_reported(trial):
    one = trial(None, *ON, "sharing.manager_gamma=0.5", "algorithm.gamma=0.9", "evaluation.interval=2")
    results = [one.train() for _ in range(3)]
    last = results[-1]
    assert last["return_sum_team"] == pytest.approx(4 * last["return_mean_agent"])
    runner = last["env_runners"]
    assert runner["episode_return_mean"] == pytest.approx(last["return_sum_team"])
    assert runner["episode_len_mean"] <= 20
    assert last["learners"].keys() == {"shared", "managers_of_ants"}
    assert all(np.isfinite(learner["total_loss"]) for learner in last["learners"].values())
    # A batch of 400 agent-steps: 5 copies x 15 steps x (4 + 4/3) agents; a fragment, not two.
    assert results[0]["env_steps"] == 75
    assert last["agent_steps"] == pytest.approx(3 * 400, abs=4 * 5 * 2)
    settings = learner_of(one)._batch_settings
    assert (settings("shared").gamma, settings("managers_of_ants").gamma) == (0.9, 0.5)
    played = evaluate_modules(one.living.sweep, dict(learner_of(one).module.items()), range(4))
    assert list(played.returns) == [f"ant_{i}" for i in range(4)]
    assert played.sum_team == pytest.approx(4 * played.mean_agent)
    assert results[1]["evaluation"].keys() >= {"return_mean_agent", "food_collected"}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("way", [(), ("sharing.manager=team", "module=gru")], ids=["agent", "team-gru"])
def test_a_paused_trial_goes_on_exactly(trial, tmp_path, way):
    one = trial(None, *ON, *way)
    one.train()
    one.save(str(tmp_path / "pause"))
    expected = one.train()
    weights = {m: {k: v.clone() for k, v in part.state_dict().items()} for m, part in learner_of(one).module.items()}
    other = trial(None, *ON, *way)
    other.restore(str(tmp_path / "pause"))
    again = other.train()
    assert again["learners"].keys() == expected["learners"].keys()
    assert [v["policy_loss"] for v in again["learners"].values()] == [
        v["policy_loss"] for v in expected["learners"].values()
    ]
    for module_id, part in learner_of(other).module.items():
        assert all(torch.equal(value, weights[module_id][name]) for name, value in part.state_dict().items())


@pytest.mark.usefixtures("ray_session")
def test_a_clone_keeps_its_own_discount(trial, tmp_path):
    donor = trial({"sharing.manager_gamma": 0.5}, *ON, number=0)
    clone = trial({"sharing.manager_gamma": 0.7}, *ON, number=1)
    donor.train()
    clone.train()
    donor.save(str(tmp_path / "donor"))
    living = clone.algorithm
    clone.reset({"sharing.manager_gamma": 0.8})
    clone.restore(str(tmp_path / "donor"))
    assert clone.algorithm is living
    assert learner_of(clone)._batch_settings("managers_of_ants").gamma == 0.8
    assert np.isfinite(clone.train()["learners"]["managers_of_ants"]["total_loss"])


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("world", ["mpe/simple_tag", *TURNS])
def test_they_are_learned_from(base, world):
    batch = {"train_batch_size": 60, "minibatch_size": 10}
    sweep = hierarchy(base, world, algorithm=batch, cluster={"num_envs_per_env_runner": 3})
    algorithm = algorithm_config(sweep).build_algo()
    learners = [algorithm.train() for _ in range(2)][-1]["learners"]
    algorithm.stop()
    assert {name for name in learners if name.startswith("managers_of_")}
    assert np.isfinite([values["total_loss"] for name, values in learners.items() if name != "__all_modules__"]).all()


def test_the_scripted_policy_plays_without_managers(base):
    """What a sweep's winner is compared with."""
    bare = dataclasses.replace(base, sharing=SharingConfig("parameter_sharing", {}))
    seeds = range(3)
    assert selection._baseline(base, base, seeds) == selection._baseline(bare, bare, seeds)


@pytest.mark.slow
def test_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["+experiment=debug", "search=none", "logger.progress=off", f"results_dir={tmp_path / 'results'}"]
    assert main([*words, *ON, "sharing.manager=team"]) == 0
    (run,) = (tmp_path / "results" / "debug").iterdir()
    best = json.loads((run / "summary.json").read_text())["best"]["evaluation"]
    assert best["return_sum_team"] == pytest.approx(4 * best["return_mean_agent"])
    assert best["episode_len_mean"] <= 20
    baseline = json.loads((run / "best" / "evaluation.json").read_text())["baseline"]
    assert baseline["return_sum_team"] == pytest.approx(4 * baseline["return_mean_agent"])
