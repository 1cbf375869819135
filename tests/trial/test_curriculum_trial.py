"""A curriculum in a trial: policies carry over, pauses and copies go on in their stage, a whole run shows it."""

import csv
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from probes import learner_of as learner

from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.config.curriculum_stages import stage_sweeps
from marl_tune.config.schema.sweep import BreakthroughConfig
from marl_tune.config.search_space import Distribution
from marl_tune.report.charts import Curve
from marl_tune.report.curriculum import stage_lines
from marl_tune.results.metrics import STAGE, STAGE_CHANGE
from marl_tune.results.run_folder import RunFolder
from marl_tune.search.pb2 import Pb2
from marl_tune.search.pbt import Pbt
from marl_tune.sweep.run import run
from marl_tune.trial.breakthroughs import BreakthroughDetector
from marl_tune.trial.living_algorithm import LivingAlgorithm, only_live_changes

# Each stage is left after its first iteration: 5 episodes end in it, and no return is as low as that.
FAST = "env.curriculum={stages:[{n_agents:2,grid_size:[6,6]},{n_agents:3}],threshold:-100,episodes:5}"
NEVER = FAST.replace("-100", "1000")
pytestmark = pytest.mark.usefixtures("ray_session")


def state_of(trial):
    """Weights and Adam's moments of the learner, copied."""
    (adam,) = learner(trial)._named_optimizers.values()
    moments = [value.clone() for slot in adam.state_dict()["state"].values() for value in slot.values()]
    return [value.clone() for value in learner(trial).module["shared"].state_dict().values()] + moments


def equal(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def loss(result):
    return result["learners"]["shared"]["policy_loss"]


def test_policies_go_through_the_stages(trial, monkeypatch):
    around, enter = [], LivingAlgorithm.enter_stage

    def watched(self, stage):
        before = state_of(self)
        config = enter(self, stage)
        around.append((before, state_of(self)))
        return config

    monkeypatch.setattr(LivingAlgorithm, "enter_stage", watched)
    one = trial(None, FAST)
    results = [one.train()]
    living = one.algorithm
    results += [one.train() for _ in range(3)]
    assert one.algorithm is living
    assert len(around) == 2
    assert all(equal(before, after) for before, after in around)
    assert [result["curriculum"]["stage"] for result in results] == [0, 1, 2, 2]
    changes = [result.get(STAGE_CHANGE) for result in results]
    assert [change and (change["left"], change["entered"]) for change in changes] == [(0, 1), (1, 2), None, None]
    for result, agents in zip(results, (2, 3, 4, 4), strict=True):
        assert result["return_sum_team"] == pytest.approx(agents * result["return_mean_agent"])
    assert one.algorithm.env_runner.env.config == one.living.sweep.env.__class__(
        **{**vars(one.living.sweep.env), "curriculum": None}
    )
    steps = np.diff([0, *(result["agent_steps"] for result in results)])
    assert steps.tolist() == [400, 405, 400, 400], "rounded up to one step of all agents"


def test_a_new_stage_has_no_return_before_an_episode_of_its_own_ends(trial):
    one = trial(None, FAST.replace("{n_agents:3}", "{n_agents:3,max_steps:50}"))
    one.train()
    assert np.isnan(one.train()["return_mean_agent"])


def test_a_stage_that_is_not_passed_is_stayed_in(trial):
    one = trial(None, NEVER)
    results = [one.train() for _ in range(3)]
    assert [result["curriculum"]["stage"] for result in results] == [0, 0, 0]
    assert results[-1]["curriculum"]["progress"] == pytest.approx(results[-1]["curriculum"]["mean"] / 1000)


def test_a_stage_is_fallen_back_to_with_fewer_agents(trial):
    one = trial(None, FAST.replace("threshold:-100", "threshold:-0.19,fall_back:-0.195"))
    results = [one.train() for _ in range(6)]
    stages = [result["curriculum"]["stage"] for result in results]
    assert any(later < earlier for earlier, later in pairwise(stages)), stages
    for result, stage in zip(results, stages, strict=True):
        assert result["return_sum_team"] == pytest.approx((stage + 2) * result["return_mean_agent"])


@pytest.mark.parametrize(
    ("words", "anew"),
    [((FAST,), True), ((FAST, "module=gru"), False), ((FAST.replace("-100", "[-100,1000]"),), True)],
    ids=["a new trial", "a memory, in place", "within a stage"],
)
def test_a_paused_trial_goes_on_exactly_in_its_stage(trial, tmp_path, words, anew):
    """The checkpoint is of the moment in which a stage begins, or of the middle of one."""
    one = trial({"seed": 1}, *words)
    one.train()
    if "1000" in words[0]:
        one.train()
    one.save(str(tmp_path / "pause"))
    expected, after = one.train(), state_of(one)
    if anew:
        again = trial({"seed": 1}, *words)
    else:
        again = one
        again.reset({"seed": 1, "algorithm.lr": 5e-3})
        again.train()
        again.reset({"seed": 1})
    again.restore(str(tmp_path / "pause"))
    result = again.train()
    assert result["curriculum"] == expected["curriculum"]
    assert (loss(result), result["agent_steps"]) == (loss(expected), expected["agent_steps"])
    assert equal(state_of(again), after)


def test_a_copy_goes_on_in_its_donors_stage_by_its_own_rules(trial, tmp_path):
    donor, clone = trial(None, FAST, number=0), trial(None, NEVER, number=1)
    donor.train()
    clone.train()
    donor.save(str(tmp_path / "donor"))
    living = clone.algorithm
    clone.reset({"env.curriculum.threshold": 500.0})
    clone.restore(str(tmp_path / "donor"))
    assert clone.algorithm is living
    assert equal(state_of(clone), state_of(donor))
    result = clone.train()
    assert (result["curriculum"]["stage"], clone.algorithm.env_runner.env.config.n_agents) == (1, 3)
    assert clone.followers["curriculum"].curriculum.rules.threshold == 500.0
    assert result["return_sum_team"] == pytest.approx(3 * result["return_mean_agent"])


def test_what_keeps_an_algorithm(tiny):
    base = tiny(FAST)
    assert only_live_changes(base, tiny(NEVER))
    assert not only_live_changes(base, tiny())
    assert not only_live_changes(base, tiny(FAST.replace("n_agents:3", "n_agents:1")))


def test_evaluation_plays_the_world_itself(trial, monkeypatch):
    played = []
    import marl_tune.evaluation.play as evaluation

    play = evaluation.play

    def watched(world, *args):
        played.append(world.config.n_agents)
        return play(world, *args)

    monkeypatch.setattr(evaluation, "play", watched)
    result = trial(None, NEVER, "evaluation.interval=1").train()
    assert result["curriculum"]["stage"] == 0
    assert played == [4]


def test_an_unknown_metric_ends_the_trial_with_the_nearest_one(trial):
    one = trial(None, FAST.replace("episodes:5", "episodes:5,metric:env_runners/food_colected"))
    with pytest.raises(ValueError, match="did you mean 'env_runners/food_collected'"):
        one.train()


def test_breakthroughs_begin_anew_with_a_world():
    detector = BreakthroughDetector(BreakthroughConfig(10, 5.0, 20), ["a", "b"])
    low, high = np.random.default_rng(0).normal(size=(2, 40, 1))
    high += 50.0
    detector.add(np.concatenate([low, low], axis=1))
    assert detector.add(np.concatenate([high, high], axis=1)), "in one world that is a rise"
    count = detector.count
    detector.begin_world(["a", "b", "c"])
    assert detector.add(np.repeat(high + 100.0, 3, axis=1)) == []
    assert (detector.count, detector.episodes) == (count, 120)


# -- populations -------------------------------------------------------------------------------------------------------


def population(scheduler, scores):
    """Trials with (stage, score), known to the scheduler."""
    trials = []
    for number, (stage, score) in enumerate(scores):
        trial = SimpleNamespace(trial_id=str(number), is_finished=lambda: False, config={"algorithm.lr": 0.5})
        state = SimpleNamespace(last_score=None)
        scheduler._trial_state[trial := _Hashable(trial)] = state
        scheduler._save_trial_state(state, 1, {"score": score, STAGE: stage, "training_iteration": 1}, trial)
        trials.append(trial)
    return trials


class _Hashable:
    def __init__(self, inner):
        self.__dict__.update(vars(inner))

    def __str__(self):
        return f"trial {self.trial_id}"


SETTINGS = {"time_attr": "training_iteration", "metric": "score", "mode": "max", "perturbation_interval": 1}


def pbt(**changes):
    lr = {"algorithm.lr": Distribution("uniform", (0.0, 1.0))}
    domains = {"algorithm.lr": [0.1, 0.9]}
    settings = SETTINGS | {"quantile_fraction": 0.25} | changes
    return Pbt(space=lr, domains=domains, seed=0, resample_probability=0.5, perturbation_factors=(0.8, 1.2), **settings)


def test_a_later_stage_ranks_above_a_higher_score():
    scheduler = pbt()
    trials = population(scheduler, [(0, 9.0), (1, 1.0), (0, 8.0), (1, 2.0), (2, float("nan"))])
    assert scheduler._quantiles() == ([trials[2]], [trials[3]])
    assert [scheduler._trial_state[t].last_score for t in trials[:4]] == [9.0, 1.0, 8.0, 2.0]


def test_without_stages_and_by_an_evaluation_the_score_decides():
    scheduler = pbt()
    trials = population(scheduler, [(0, 9.0), (0, 1.0), (0, 8.0), (0, 2.0)])
    assert scheduler._quantiles() == ([trials[1]], [trials[0]])
    scheduler = pbt(metric="evaluation/score")
    for trial, score in zip(trials, (9.0, 1.0, 8.0, 2.0), strict=True):
        state = scheduler._trial_state[trial] = SimpleNamespace(last_score=None)
        scheduler._save_trial_state(state, 1, {"evaluation/score": score, STAGE: int(score == 1.0)}, trial)
    assert scheduler._quantiles() == ([trials[1]], [trials[0]])


def test_pb2_takes_no_change_of_a_score_across_stages():
    lr = {"algorithm.lr": Distribution("uniform", (0.0, 1.0))}
    scheduler = Pb2(space=lr, **SETTINGS, quantile_fraction=0.25)
    one, donor = population(scheduler, [(0, 9.0), (1, 3.0)])
    state = scheduler._trial_state[one]
    scheduler._save_trial_state(state, 2, {"score": 1.0, STAGE: 1, "training_iteration": 2}, one)
    assert scheduler.data["Trial"].tolist() == ["trial 0 in stage 0", "trial 1", "trial 0"]
    scheduler._save_trial_state(state, 3, {"score": 2.0, STAGE: 1, "training_iteration": 3}, one)
    changes = scheduler.data.groupby("Trial")["Reward"].diff()
    assert changes.dropna().tolist() == [1.0]
    assert isinstance(scheduler.data, pandas.DataFrame)
    assert donor is not one


# -- a whole run -------------------------------------------------------------------------------------------------------


def test_a_run_tells_of_its_stages(tiny, capsys):
    words = ["search=none", "search.num_samples=1", "space={}", "stop.iterations=4", "logger.progress=plain"]
    sweep = tiny(FAST, *words, "stop.target=-50", "logger=tensorboard")
    assert run(sweep, ["test"]) == 0
    out = capsys.readouterr().out
    assert "stage 0 → 1 at iteration 1: its mean" in out
    assert "reached -100" in out
    (manifest,) = Path(sweep.results_dir).rglob("manifest.json")
    with (manifest.parent / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["curriculum/stage"] for row in rows] == ["0", "1", "2"], "the target counts in the last stage"
    assert STAGE_CHANGE not in rows[0]
    page = (manifest.parent / "report.html").read_text()
    assert 'aria-label="Stages of the curriculum"' in page
    assert "below, the stage of the curriculum" in page


def test_the_picture_of_the_stages():
    points = [(10.0, 0.0), (20.0, 1.0), (30.0, 1.0), (15.0, 0.0)]
    picture = stage_lines([Curve("trial 1", "winner", points)], [Curve("trial 1", "winner", [(40.0, 3.0)])])
    path = next(line for line in picture.splitlines() if 'class="curve winner"' in line)
    assert path.count("V") == 1, "one step up"
    assert path.count("M") == 2, "and a break where a copy goes back"
    assert all(f">stage {stage}<" in picture for stage in (0, 1))
    assert stage_lines([], []) == ""


@pytest.mark.slow
def test_remote_runners_go_through_the_stages(trial):
    one = trial(None, FAST, "cluster.num_env_runners=2", "cluster.num_envs_per_env_runner=5")
    results = [one.train() for _ in range(5)]
    assert [result["curriculum"]["stage"] for result in results][-1] == 2
    group = one.algorithm.env_runner_group
    assert group.foreach_env_runner(lambda runner: len(runner.policy_map.agents)) == [4, 4, 4]
    for result in results:
        present = result["curriculum"]["stage"] + 2
        if not np.isnan(result["return_mean_agent"]):
            assert result["return_sum_team"] == pytest.approx(present * result["return_mean_agent"])
    # Ray makes a runner that died from the settings of its first start; RLlib then tells of it.
    old = algorithm_config(stage_sweeps(one.living.sweep)[0])
    group.foreach_env_runner(
        lambda runner: runner.apply_settings(old, True), local_env_runner=False, remote_worker_ids=[1]
    )
    assert group.foreach_env_runner(lambda runner: len(runner.policy_map.agents)) == [4, 2, 4]
    one.algorithm._make_on_env_runners_recreated_callbacks(
        config=one.algorithm.config, env_runner_group=group, restored_env_runner_indices=[1]
    )
    assert group.foreach_env_runner(lambda runner: len(runner.policy_map.agents)) == [4, 4, 4]


@pytest.mark.slow
def test_a_population_goes_through_the_stages(tiny):
    space = "+space={env.curriculum.threshold:{choice:[-100,1000]},algorithm.lr:{loguniform:[1e-4,1e-2]}}"
    words = ["search=pbt", "search.num_samples=4", "search.perturbation_interval=1", "stop.iterations=6", "seed=3"]
    sweep = tiny(FAST, *words, space)
    assert run(sweep, ["test"]) == 0
    (manifest,) = Path(sweep.results_dir).rglob("manifest.json")
    folder = RunFolder(manifest.parent)
    with folder.progress.open() as file:
        stage = {(row["trial"], int(row["iteration"])): int(row["curriculum/stage"]) for row in csv.DictReader(file)}
    assert {0, 2} <= set(stage.values())
    copies = folder.read_lineage()
    assert copies
    for record in copies:
        of_donor = [stage[trial, step] for trial, step in stage if trial == record.source and step <= record.step + 1]
        assert stage[record.to, record.step] <= max(of_donor), "none is copied from an earlier stage"
