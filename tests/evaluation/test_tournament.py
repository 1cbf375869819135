"""How policies of self-play are judged: against each other, against scripted players, and what a run shows of it."""

import json
import sys
import types

import numpy as np
import pytest

from marl_tune import envs, evaluate
from marl_tune.config.compose import compose
from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.sweep import SelectionConfig
from marl_tune.evaluation.scripted_opponents import find_scripted_player, play_against
from marl_tune.evaluation.statistics import bootstrap_mean_ci, wilson_interval
from marl_tune.evaluation.tournament import schedule
from marl_tune.report.data import load
from marl_tune.report.page import render
from marl_tune.report.self_play import heat_map, short_name
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import read_csv, read_json
from marl_tune.sampling.games import results_of
from marl_tune.sweep.run import run

WORDS = (
    *("+experiment=tictactoe_self_play", "logger=csv", "logger.progress=off", "module.hidden_dims=[16]"),
    *("cluster.num_envs_per_env_runner=8", "algorithm.train_batch_size=128", "algorithm.minibatch_size=64"),
    *("algorithm.num_epochs=1", "checkpoint.frequency=1", "stop.agent_steps=null", "stop.iterations=3"),
    *("selection.top_k=3", "selection.episodes=10", "selection.bootstrap=100", "sharing.snapshot.every=1"),
)


class RandomPlayer:
    """Any legal move."""

    def __init__(self, world_groups, seed):
        self.groups, self.rng = world_groups, np.random.default_rng(seed)

    def act(self, observations, acting):
        actions = {}
        for group in self.groups:
            mask = observations[group.name]["action_mask"]
            chosen = (self.rng.random(mask.shape) * mask).argmax(axis=-1)
            actions[group.name] = np.where(acting[group.name], chosen, 0)
        return actions


class FirstPlayer(RandomPlayer):
    """The first legal move: against a policy that does not lose to it every game is the same."""

    def act(self, observations, acting):
        return {g.name: observations[g.name]["action_mask"].argmax(axis=-1) for g in self.groups}


@pytest.fixture(scope="module")
def players():
    """The world's scripted players, as its registry names them."""
    module = types.ModuleType("scripted_players")
    module.RandomPlayer, module.FirstPlayer = RandomPlayer, FirstPlayer
    patch = pytest.MonkeyPatch()
    patch.setitem(sys.modules, "scripted_players", module)
    known = {"random": "scripted_players:RandomPlayer", "first": "scripted_players:FirstPlayer"}
    patch.setattr(envs, "PLAYERS", {"classic/tictactoe": known})
    yield
    patch.undo()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a small run that has ended."""
    results = tmp_path_factory.mktemp("results")
    assert run(compose([*WORDS, f"results_dir={results}"])[0], []) == 0
    (folder,) = (results / "tictactoe_self_play").iterdir()
    return RunFolder(folder)


def test_the_selection_lets_candidates_play_each_other(finished):
    judged = read_json(finished.evaluation)
    assert len(judged["candidates"]) == 3
    results = [candidate["mean_result"] for candidate in judged["candidates"]]
    assert results == sorted(results, reverse=True)
    assert np.mean(results) == pytest.approx(0.5), "what one wins another loses"
    for candidate in judged["candidates"]:
        low, high = candidate["ci95"]
        assert candidate["episodes"] == 12, "3 rounds, 4 games each"
        assert 0 <= low <= candidate["mean_result"] <= high <= 1
    assert judged["seeds"] == [2000000, 2000001, 2000002]
    summary = read_json(finished.summary)
    assert summary["best"]["evaluation"]["mean_result"] == results[0]
    assert summary["metric"] == "self_play/elo"
    assert (finished.best_checkpoint / "policy.pt").is_file()


def test_a_run_keeps_its_curve_and_its_matrix(finished):
    rows = read_csv(finished.progress)
    names = {"elo", "win_rate", "draw_rate", "game_length", "snapshots"}
    assert {f"self_play/{name}" for name in names} <= set(rows[0])
    assert [row["self_play/snapshots"] for row in rows] == ["1", "2", "3"]
    ((_, table),) = read_json(finished.self_play).items()
    assert table["iteration"] == 3
    assert table["players"][:2] == ["main", "untrained"]
    assert len(table["win_rates"]) == len(table["elo"]) == 5


def test_the_report_shows_them(finished):
    page = render(load(finished))
    assert "<h2>Self-play</h2>" in page
    assert "mean result against the other candidates" in page
    assert "main against untrained" in page
    table = {"players": ["main", "untrained", "a_1.main.000012"], "elo": [20.0, 0.0, 5.0]}
    picture = heat_map(table | {"win_rates": [[None, 0.75, None], [0.25, None, None], [None, None, None]]})
    assert "0.75" in picture
    assert "0.25" not in picture, "rows are learners"
    assert short_name("a_1.main.000012.1f") == "12"


def test_a_scripted_player_is_played_on_all_sides(finished, players, capsys):
    words = [str(finished.path), "--against", "random", "--episodes", "20"]
    assert evaluate.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["against"], told["explore"], told["seed"]) == ("random", False, 2000000)
    assert list(told["sides"]) == ["player_1", "player_2"]
    for side in told["sides"].values():
        assert side["games"] == 20 == side["wins"] + side["draws"] + side["losses"]
        assert side["result"] == pytest.approx((side["wins"] + side["draws"] / 2) / 20)
        assert side["wins_ci"][0] <= side["wins_share"] <= side["wins_ci"][1]
    assert told["all"]["games"] == 40
    assert told["sides"]["player_1"]["result"] > told["sides"]["player_2"]["result"], "who moves first has it easier"
    assert evaluate.main(words) == 0
    table = capsys.readouterr().out
    assert "against random, greedy, seeds from 2000000 on" in table
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["player_1", "player_2", "all"]


def test_a_greedy_policy_repeats_itself_unless_the_player_has_chance(finished, players):
    first = play_against(finished.best_checkpoint, "first", episodes=8)
    assert all(8 in (side["wins"], side["draws"], side["losses"]) for side in first["sides"].values())
    one, same, other = (play_against(finished.best_checkpoint, "random", 16, seed)["sides"] for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("perfct", "--against 'perfct' is not known"),
        ("randm", "did you mean 'random'"),
    ],
)
def test_an_unknown_player_is_named(finished, players, capsys, name, message):
    assert evaluate.main([str(finished.path), "--against", name]) == 2
    assert message in capsys.readouterr().err


def test_a_world_without_players_says_so(players):
    with pytest.raises(ConfigError, match=r"--against needs a world with scripted players \(classic/"):
        find_scripted_player(types.SimpleNamespace(name="pricing"), "random")


def test_results_of_several_sides():
    returns = np.array([[1.0, 0.0, 2.0], [1.0, 1.0, 1.0], [0.0, -1.0, 1.0]])
    assert results_of(returns, 0).tolist() == [0.75, 0.5, 1.0]
    assert results_of(returns[:2], 1).tolist() == [0.5, 1.0, 0.0]


def test_everybody_meets_everybody_on_all_sides():
    rules = SelectionConfig(top_k=3, episodes=8, seed=50, confidence=0.95, bootstrap=100, explore=True)
    two = schedule(3, 2, rules)
    assert {(m.home, m.away) for m in two} == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}
    assert {m.seed for m in two} == {50, 51}
    assert all(sum(player in (m.home, m.away) for m in two) == 8 for player in range(3))
    four = schedule(2, 4, rules)
    assert {(m.home, m.side) for m in four} == {(player, side) for player in (0, 1) for side in range(4)}


def test_intervals_of_shares_and_means():
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10)[1] == 1.0
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    results = [0.0, 0.5, 1.0] * 30
    low, high = bootstrap_mean_ci(results, resamples=4000)
    assert (low, high) == pytest.approx((0.5 - 1.96 * 0.0430, 0.5 + 1.96 * 0.0430), abs=0.012)
