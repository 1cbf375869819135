"""Which checkpoints become candidates, and what the winner's record says."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from marl_tune.evaluation.play import Evaluation, evaluate_modules, play
from marl_tune.evaluation.selection import (
    Candidate,
    PlayedCandidate,
    candidates,
    describe,
    lead_of_winner,
    ranked,
    select,
)
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import read_json
from marl_tune.sharing.build_world import build_world


def tune_trial(trial_id, saved):
    results = [
        SimpleNamespace(checkpoint=SimpleNamespace(path=str(path)), metrics={"score": score, "training_iteration": it})
        for path, it, score in saved
    ]
    manager = SimpleNamespace(best_checkpoint_results=results)
    return SimpleNamespace(trial_id=trial_id, config={}, run_metadata=SimpleNamespace(checkpoint_manager=manager))


def test_candidates_are_the_best_of_the_whole_sweep(tmp_path):
    def at(name):
        (tmp_path / name).mkdir()
        return tmp_path / name

    one = tune_trial("one", [(at("a"), 4, 1.0), (at("b"), 8, 3.0)])
    two = tune_trial("two", [(at("c"), 4, float("nan")), (at("d"), 8, 2.0), (tmp_path / "gone", 12, 9.0)])
    best = candidates([one, two], "score", "max", 3)
    assert [(c.trial, c.iteration) for c in best] == [("one", 8), ("two", 8), ("one", 4)]
    worst_first = candidates([one, two], "score", "min", 4)
    assert [c.iteration for c in worst_first] == [4, 8, 8, 4]
    assert worst_first[-1].trial == "two", "a checkpoint without a score comes last"


def played(trial, scores):
    scores = np.asarray(scores, dtype=float)
    evaluation = Evaluation(list(range(len(scores))), {"a": scores}, np.ones(len(scores)), {})
    return PlayedCandidate(Candidate(trial, Path(), 1, 0.0), evaluation, scores)


def test_separation_is_from_another_trial(tiny):
    rules = tiny("selection.bootstrap=500").selection
    rng = np.random.default_rng(0)
    good, same = rng.normal(1.0, 0.1, 50), rng.normal(1.0, 0.1, 50)
    bad = rng.normal(0.0, 0.1, 50)
    assert lead_of_winner([played("a", good), played("a", bad)], rules) == {
        "separated": False,
        "difference_to_next": None,
    }
    assert lead_of_winner([played("a", good), played("a", same), played("b", bad)], rules)["separated"]
    close = lead_of_winner([played("a", good), played("b", good - 0.001 + rng.normal(0, 0.05, 50))], rules)
    assert not close["separated"]


def test_where_chance_decides_the_plain_mean_does(tiny):
    rules = tiny("selection.bootstrap=500").selection
    noise = np.random.default_rng(0).normal(0, 0.1, 100)
    steady, weak = 1.0 + noise, 0.5 + noise
    fails_sometimes = np.where(np.arange(100) < 4, -3.0, 1.001 + np.roll(noise, 1))
    order = [
        p.candidate.trial
        for p in ranked([played("weak", weak), played("fails", fails_sometimes), played("steady", steady)], rules, 1.0)
    ]
    assert order == ["steady", "fails", "weak"]
    better = played("better", 1.5 + noise - 10 * (np.arange(100) < 2))
    assert ranked([played("steady", steady), better], rules, 1.0)[0] is better, "a real lead in the IQM wins"
    assert ranked([played("steady", steady), played("weak", weak)], rules, -1.0)[0].candidate.trial == "weak"


def test_an_evaluation_states_both_returns(tiny):
    returns = {"a": np.array([1.0, 3.0]), "b": np.array([3.0, 5.0])}
    evaluation = Evaluation([0, 1], returns, np.array([5, 7]), {"food": np.array([0.0, 1.0])})
    numbers = describe(evaluation, "return_mean_agent", tiny().selection)
    assert numbers["return_mean_agent"] == 3.0
    assert numbers["return_sum_team"] == 6.0
    assert numbers["episode_len_mean"] == 6.0
    assert numbers["food"] == 0.5
    assert list(evaluation.scores("env_runners/episode_return_mean")) == [4.0, 8.0]
    assert list(evaluation.scores("env_runners/food")) == [0.0, 1.0]
    assert list(evaluation.scores("return_mean_agent")) == [2.0, 4.0]


class Scripted:
    """Acts by a fixed list, the same for all agents."""

    def __init__(self, world):
        self.world = world

    def act(self, observations):
        shape = observations["ants"].shape[:2]
        return {"ants": np.zeros(shape, dtype=np.int64)}


def test_every_seed_is_played_once_from_its_own_start(tiny):
    sweep = tiny()
    together = play(build_world(sweep, 3), Scripted(None), [5, 6, 7])
    alone = [play(build_world(sweep, 1), Scripted(None), [seed]) for seed in (5, 6, 7)]
    assert list(together.lengths) == [20, 20, 20]
    for i, one in enumerate(alone):
        assert together.sum_team[i] == pytest.approx(one.sum_team[0])
        assert together.metrics["pheromone_coverage"][i] == one.metrics["pheromone_coverage"][0]


def test_sampled_play_is_repeatable_and_leaves_the_generator_alone(tiny):
    import torch

    from marl_tune.sharing.module_specs import build_policy_map, module_specs

    sweep = tiny()
    modules = dict(module_specs(sweep, build_policy_map(sweep, build_world(sweep, 1))).build().items())
    before = torch.get_rng_state()
    first, second = (evaluate_modules(sweep, modules, [1, 2], explore=True) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    covered = [list(played.metrics["pheromone_coverage"]) for played in (first, second)]
    assert covered[0] == covered[1]
    greedy = evaluate_modules(sweep, modules, [1, 2], explore=False)
    assert list(greedy.metrics["pheromone_coverage"]) != covered[0]


def test_the_winner_is_written_with_its_rivals_and_the_baseline(tiny, trial, tmp_path):
    sweep = tiny()
    folders = []
    for number, words in enumerate((["algorithm.lr=1e-3"], ["algorithm.lr=1e-2"])):
        one = trial(None, *words, number=number)
        one.train()
        folders.append(tmp_path / f"trial_{number}")
        one.save(str(folders[-1]))
    trials = [tune_trial(f"t{i}", [(folder, 1, float(i))]) for i, folder in enumerate(folders)]
    run = RunFolder.create(tmp_path / "runs", "sweep")
    sweep.search.metric = "score"
    best = select(sweep, trials, run)
    record = read_json(run.evaluation)
    assert best["trial"] == record["winner"]["trial"]
    assert len(record["candidates"]) == 2
    assert record["baseline"]["name"] == "Forager"
    assert record["seeds"] == list(range(sweep.selection.seed, sweep.selection.seed + sweep.selection.episodes))
    assert (run.best_checkpoint / "policy.pt").is_file()
    assert run.best_config.read_text().startswith("name: debug")


def test_no_checkpoint_is_no_winner(tiny, tmp_path):
    assert select(tiny(), [tune_trial("a", [])], RunFolder.create(tmp_path, "sweep")) is None
