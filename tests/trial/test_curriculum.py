"""Curricula: when a stage is left, what a stage is, what is refused, and how results of different stages compare."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from marl_tune import envs
from marl_tune.config.compose import compose
from marl_tune.config.convert import from_dict, to_dict
from marl_tune.config.curriculum_stages import stage_worlds
from marl_tune.config.errors import ConfigError
from marl_tune.config.overrides import apply, is_live
from marl_tune.config.schema.sweep import PlateauConfig, StopConfig
from marl_tune.envs.curriculum import CurriculumConfig, WorldConfig
from marl_tune.evaluation.selection import candidates
from marl_tune.live.sweep_state import Budget, SweepState
from marl_tune.live.table import SweepTable
from marl_tune.report.data import ReportData
from marl_tune.results.metrics import COPY, STAGE, STAGES_LEFT
from marl_tune.results.records import TrialRecord
from marl_tune.results.run_folder import RunFolder
from marl_tune.search.stopping import SweepStopper
from marl_tune.sweep.dry_run import plan_lines
from marl_tune.trial.curriculum import Curriculum, StageChange, values_of_episodes
from marl_tune.validation.validate import validate

TWO = "env.curriculum={stages:[{n_agents:2,grid_size:[6,6]},{n_agents:3}],threshold:5,episodes:4}"


def rules(**changes):
    given = {"stages": [{"n_agents": 1}, {"n_agents": 2}], "threshold": 5.0, "episodes": 3}
    return CurriculumConfig(**(given | changes))


# -- when a stage is left ----------------------------------------------------------------------------------------------


def heard(curriculum, *values):
    curriculum.add(values, [0])
    return curriculum.judge()


def test_a_stage_is_left_when_the_mean_of_a_full_window_reaches_the_threshold():
    one = Curriculum(rules(), 1)
    assert heard(one, 9.0, 9.0) is None, "the window is not full"
    assert heard(one, -3.5) is None, "4.83 is below 5"
    assert heard(one, 9.5) == StageChange(left=0, entered=1, level=5.0, limit=5.0)
    assert one.stage == 1
    assert math.isnan(one.mean), "the next stage is judged by its own episodes"
    assert heard(one, 9.0, 9.0) is None
    assert heard(one, 9.0).entered == 2
    assert heard(one, 99.0, 99.0, 99.0) is None, "the world itself is not left"


def test_the_window_holds_the_newest_episodes():
    one = Curriculum(rules(), 1)
    one.add([100.0, 1.0, 2.0, 3.0], [0])
    assert one.mean == pytest.approx(2.0)
    assert one.judge() is None


def test_every_copy_has_to_end_an_episode_in_the_stage():
    one = Curriculum(rules(), 3)
    one.add([9.0] * 8, [0, 2, 2])
    assert one.judge() is None, "the longest episodes are still under way"
    one.add([4.0], [1])
    assert one.judge().entered == 1
    one.add([9.0] * 8, [0, 2])
    assert one.judge() is None, "that counts anew in the next"


def test_a_threshold_for_each_stage():
    one = Curriculum(rules(threshold=[1.0, 8.0]), 1)
    assert heard(one, 1.0, 1.0, 1.0) == StageChange(0, 1, 1.0, 1.0)
    assert heard(one, 7.0, 7.0, 7.0) is None
    assert heard(one, 9.0, 9.0, 9.0) == StageChange(1, 2, 9.0, 8.0)


def test_a_stage_is_fallen_back_from():
    one = Curriculum(rules(fall_back=2.0), 1)
    assert heard(one, 1.0, 1.0, 1.0) is None, "there is none before the first"
    assert heard(one, 5.0, 5.0, 5.0).entered == 1
    assert heard(one, 1.0, 1.0) is None, "the window is not full"
    assert heard(one, 4.0) is None, "2 is not below 2"
    assert heard(one, 0.9) == StageChange(left=1, entered=0, level=pytest.approx(5.9 / 3), limit=2.0)
    assert Curriculum(rules(), 1).rules.fall_back is None


def test_what_is_logged():
    one = Curriculum(rules(threshold=[4.0, -1.0]), 1)
    first = one.numbers()
    assert (first["stage"], first["stages_left"]) == (0, 2)
    assert math.isnan(first["mean"])
    assert "progress" not in first
    one.add([2.0], [0])
    assert one.numbers() == {"stage": 0, "stages_left": 2, "mean": 2.0, "progress": 0.5}
    heard(one, 9.0, 9.0)
    one.add([-2.0], [0])
    assert one.numbers() == {"stage": 1, "stages_left": 1, "mean": -2.0}, "-2 is no share of -1"


def test_state_comes_back_under_other_thresholds():
    one, other = Curriculum(rules(), 1), Curriculum(rules(threshold=6.0, episodes=2), 1)
    heard(one, 9.0, 9.0, 9.0)
    one.add([4.0, 5.0, 6.0], [0])
    other.set_state(one.get_state())
    assert (other.stage, other.mean) == (1, 5.5)
    assert other.judge() is None


def test_the_metric_of_each_episode():
    finished = [
        {COPY: np.array([0, 1]), "return_mean_agent": np.array([1.0, math.nan])},
        {COPY: np.array([5]), "return_mean_agent": np.array([3.0])},
    ]
    assert values_of_episodes("return_mean_agent", finished, {"return_mean_agent": 7.0}) == [1.0, 3.0]
    assert values_of_episodes("learners/shared/entropy", finished, {"learners/shared/entropy": 0.5}) == [0.5] * 3
    assert values_of_episodes("learners/shared/entropy", [], {"learners/shared/entropy": 0.5}) == []
    assert values_of_episodes("evaluation/return_mean_agent", finished, {}) == [], "not in every iteration"
    assert values_of_episodes("return_mean_agents", [], {}) == [], "no episode has ended yet"
    with pytest.raises(ConfigError, match=r"env\.curriculum\.metric 'return_mean_agents' is not known: did you mean"):
        values_of_episodes("return_mean_agents", finished, {"seconds": 1.0})


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": []}, r"env\.curriculum\.stages must hold at least one stage"),
        ({"stages": [{"n_agents": 1}, {}]}, r"env\.curriculum\.stages\[1\] must change at least one setting"),
        ({"stages": [{"name": "x"}]}, r"env\.curriculum\.stages\[0\]\.name must be left out"),
        ({"stages": [{"workers": 2}]}, r"env\.curriculum\.stages\[0\]\.workers must be left out"),
        ({"episodes": 0}, r"env\.curriculum\.episodes must be at least 1, got 0"),
        ({"metric": "a b"}, r"env\.curriculum\.metric must be a result's name"),
        ({"metric": "curriculum/mean"}, r"env\.curriculum\.metric must be a result's name, not its own"),
        ({"threshold": [1.0]}, r"env\.curriculum\.threshold must be one number, or one for each of the 2 stages"),
        ({"threshold": math.nan}, r"env\.curriculum\.threshold must be finite, got nan"),
        ({"fall_back": 5.0}, r"env\.curriculum\.fall_back must be below every env\.curriculum\.threshold \(5\.0\)"),
        ({"threshold": [9.0, 2.0], "fall_back": 3.0}, r"env\.curriculum\.fall_back must be below every .* \(2\.0\)"),
        ({"fall_back": math.nan}, r"env\.curriculum\.fall_back must be below"),
    ],
)
def test_wrong_rules(changes, message):
    with pytest.raises(ValueError, match=message):
        rules(**changes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["env.curriculum={stages:[{n_agent:2}],threshold:1,episodes:1}"],
            "did you mean 'env.curriculum.stages[0].n_a",
        ),
        (
            ["env.curriculum={stages:[{n_agents:2},{n_agents:0}],threshold:1,episodes:1}"],
            "env.curriculum.stages[1]: env.n_agents must be at least 1, got 0",
        ),
        (
            ["env.curriculum={stages:[{n_agents:two}],threshold:1,episodes:1}"],
            "env.curriculum.stages[0].n_agents must be a whole number, got 'two'",
        ),
        (
            ["env.curriculum={stages:[{n_agents:90}],threshold:1,episodes:1}"],
            "env.curriculum.stages[0]: algorithm.train_batch_size must be at least 450",
        ),
        (
            ["env.curriculum={stages:[{n_agents:2}],threshold:a,episodes:1}"],
            "env.curriculum.threshold must be a number",
        ),
        (["env.curriculum={stages:[{n_agents:2}],episodes:1}"], "env.curriculum.threshold must be set"),
        (["env.curriculum.threshold=1"], "env.curriculum.threshold must be set with its whole section"),
        (
            [TWO, "sharing=independent"],
            "env.curriculum.stages[0] must keep the modules of the world itself, so that policies carry over, but adds "
            "or lacks ant_2, ant_3 under sharing=independent: let agents share modules",
        ),
        (
            [TWO, "sharing=roles", "+sharing.roles={scouts:{agents:[ant_3]},rest:{agents:['*']}}"],
            "env.curriculum.stages[0]: sharing.roles.scouts.agents=['ant_3'] match no agent",
        ),
        ([TWO, "cluster.rollout=rllib"], "cluster.rollout must be batched where env.curriculum is set"),
        ([TWO, "+env.curriculum.metric=evaluation/food_collected"], "evaluation.interval must be at least 1 where"),
        (
            [TWO, "search=optuna"],
            "search.metric must be of the evaluation, such as evaluation/return_mean_agent, under",
        ),
    ],
)
def test_wrong_settings_are_refused(tiny, words, message):
    with pytest.raises(ConfigError) as refused:
        validate(tiny(*words))
    assert message in str(refused.value)


def test_other_spaces_are_refused():
    words = ["env=mpe/simple_spread", "env.curriculum={stages:[{n_agents:2}],threshold:1,episodes:1}"]
    with pytest.raises(ConfigError, match=r"stages\[0\] must keep the observation space of module 'shared', Box"):
        validate(compose(words)[0])


def test_grids_may_change_where_every_agent_has_a_module(tiny):
    validate(tiny("sharing=independent", "env.curriculum={stages:[{grid_size:[5,5]}],threshold:1,episodes:1}"))


@pytest.mark.parametrize("name", envs.ENVS)
def test_every_world_takes_one(name):
    config = envs.config_class(name)
    assert issubclass(config, WorldConfig)
    assert envs.default_config(name).curriculum is None


def test_stages_lie_over_the_worlds_settings(tiny):
    sweep = apply(tiny(TWO), {"env.pheromone_decay": 0.5, "env.grid_size": [9, 9]})
    worlds = stage_worlds(sweep.env)
    assert [(w.n_agents, w.grid_size, w.pheromone_decay) for w in worlds] == [
        (2, [6, 6], 0.5),
        (3, [9, 9], 0.5),
        (4, [9, 9], 0.5),
    ]
    assert all(world.curriculum is None for world in worlds)
    with envs.make_world(sweep.env) as world:
        assert world.config == worlds[-1], "the simulation is given the world itself"


def test_mappings_are_merged():
    sweep = compose(
        ["env=mpe/simple_spread_v3", "env.curriculum={stages:[{kwargs:{max_cycles:9}}],threshold:1,episodes:1}"]
    )[0]
    first, itself = stage_worlds(sweep.env)
    assert first.kwargs == itself.kwargs | {"max_cycles": 9}


def test_thresholds_can_be_searched_and_change_in_a_live_trial(tiny):
    sweep = tiny(TWO)
    assert apply(sweep, {"env.curriculum.threshold": 7}).env.curriculum.thresholds == [7.0, 7.0]
    assert apply(sweep, {"env.curriculum.threshold": [7, 8]}).env.curriculum.thresholds == [7.0, 8.0]
    assert apply(sweep, {"env.curriculum": None}).env.curriculum is None
    live = {key: is_live(sweep, f"env.curriculum.{key}") for key in ("threshold", "episodes", "fall_back")}
    assert all(live.values())
    for key in ("env.curriculum", "env.curriculum.stages", "env.curriculum.metric", "env.curriculum.foo"):
        assert not is_live(sweep, key)
    assert not is_live(tiny(), "env.curriculum.threshold")


def test_sweeps_come_back_and_old_ones_have_none(tiny):
    sweep = tiny(TWO)
    assert from_dict(to_dict(sweep)) == sweep
    plain = to_dict(tiny())
    del plain["env"]["curriculum"]
    assert from_dict(plain).env.curriculum is None


def test_the_plan_tells_of_every_stage(tiny):
    lines = plan_lines(tiny(TWO, "+env.curriculum.fall_back=1"))
    start = next(number for number, line in enumerate(lines) if line.startswith("curriculum"))
    assert lines[start : start + 4] == [
        "curriculum  by return_mean_agent over the last 4 episodes of a stage",
        "  stage 0   n_agents=2 grid_size=[6, 6]: 5 copies x 40 steps x 2 agents, left at 5",
        "  stage 1   n_agents=3: 5 copies x 27 steps x 3 agents, left at 5",
        "  stage 2   the world itself; back to the stage before below 1",
    ]


# -- results of different stages ---------------------------------------------------------------------------------------


def result(iteration, score, stage, left):
    return {"training_iteration": iteration, "agent_steps": 0, "score": score, STAGE: stage, STAGES_LEFT: left}


def test_a_target_counts_in_the_last_stage_only():
    stop = SweepStopper(StopConfig(None, None, None, 5.0, None), "score", "max")
    assert not stop("a", result(1, 9.0, 0, 1))
    assert not stop("a", result(2, 4.0, 1, 0))
    assert stop("a", result(3, 5.0, 1, 0))
    evaluated = SweepStopper(StopConfig(None, None, None, 5.0, None), "evaluation/score", "max")
    assert evaluated("a", result(1, 0.0, 0, 1) | {"evaluation": {"score": 5.0}}), "it is of the world itself"


def test_a_new_stage_begins_a_plateau_anew():
    plateau = PlateauConfig(patience=2, min_delta=0.0, grace=0)
    stop = SweepStopper(StopConfig(None, None, None, None, plateau), "score", "max")
    results = [result(1, 9.0, 0, 1), result(2, 8.0, 0, 1), result(3, 1.0, 1, 0), result(4, 1.0, 1, 0)]
    assert [stop("a", one) for one in results] == [False] * 4
    again = SweepStopper(StopConfig(None, None, None, None, plateau), "score", "max")
    again.set_state(stop.get_state())
    assert again("a", result(5, 1.0, 1, 0))


def test_the_live_view_ranks_by_stage_and_shows_it():
    state = SweepState("score", "max", [], Budget(1, None, None, None))
    trial = SimpleNamespace(trial_id="a_00000", status="RUNNING", config={}, last_result=result(2, 1.0, 1, 0))
    for one in (result(1, 9.0, 0, 1), trial.last_result):
        state.add_result(trial, one)
    assert (state.best.score, state.best.iteration) == (1.0, 2)
    state.update([trial])
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(SweepTable("title", state, []))
    head, row = [
        line.split() for line in console.file.getvalue().splitlines() if "stage" in line or "running  " in line
    ]
    assert row[head.index("stage")] == "1"


def test_the_report_ranks_by_stage():
    data = ReportData(RunFolder("."), metric="score")
    data.trials = [TrialRecord("a", "TERMINATED", {}, 9.0), TrialRecord("b", "TERMINATED", {}, 1.0)]
    data.stages = {"a": [(10.0, 0.0)], "b": [(10.0, 0.0), (20.0, 1.0)]}
    assert [trial.id for trial in data.ranked()] == ["b", "a"]
    data.metric = "evaluation/score"
    assert [trial.id for trial in data.ranked()] == ["a", "b"]


def test_checkpoints_of_a_later_stage_are_the_better_candidates(tmp_path):
    saved = []
    for iteration, (score, stage) in enumerate([(9.0, 0), (1.0, 1), (2.0, 1), (math.nan, 1)]):
        (tmp_path / str(iteration)).mkdir()
        metrics = {"training_iteration": iteration, "score": score, "curriculum": {"stage": stage}}
        saved.append(SimpleNamespace(metrics=metrics, checkpoint=SimpleNamespace(path=str(tmp_path / str(iteration)))))
    manager = SimpleNamespace(best_checkpoint_results=saved)
    trial = SimpleNamespace(trial_id="a", run_metadata=SimpleNamespace(checkpoint_manager=manager))
    assert [c.iteration for c in candidates([trial], "score", "max", 4)] == [2, 1, 3, 0]
    assert [c.iteration for c in candidates([trial], "score", "min", 2)] == [1, 2]
