"""The books of self-play without a trial: who plays whom, ratings, when copies are made, how a league is matched."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from pool_probes import games, pool_of, sharing

from marl_tune import envs
from marl_tune.__main__ import main
from marl_tune.config.compose import compose
from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.sharing import SharingConfig
from marl_tune.envs.agent_group import AgentGroup
from marl_tune.sampling.assignment import Assignment
from marl_tune.sampling.games import Games
from marl_tune.self_play.league import Freeze, PastSelves
from marl_tune.self_play.pool import UNTRAINED
from marl_tune.self_play.ratings import DECAY, Payoff, expected_score
from marl_tune.sharing.game_sides import matchmaker, sides_of, versus
from marl_tune.sharing.matchmaking import Matchmaker, prioritised
from marl_tune.sharing.policy_map import PolicyMap
from marl_tune.validation.self_play import check_self_play

BOX, OTHER, TWO = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(2)
TEAMS = (AgentGroup("red", ("red_0", "red_1"), BOX, TWO), AgentGroup("blue", ("blue_0",), BOX, TWO))


# -- sides -------------------------------------------------------------------------------------------------------------


def test_every_agent_is_a_side_unless_patterns_say_otherwise():
    assert list(sides_of(TEAMS, sharing())) == ["red_0", "red_1", "blue_0"]
    named = sharing(sides={"home": ["red"], "away": ["blue_*"]})
    assert sides_of(TEAMS, named) == {"home": ("red_0", "red_1"), "away": ("blue_0",)}
    assert versus(TEAMS, named)["blue_0"] == ("main", *(f"opponent_{n}" for n in range(10)))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "self_play",
            {"sides": {"home": ["red"]}},
            r"sharing.sides must name at least two sides, or none, got \['home'\]",
        ),
        (
            "self_play",
            {"sides": {"home": ["red"], "away": []}},
            r"sharing.sides.away must hold at least one pattern, got",
        ),
        (
            "self_play",
            {"sides": {"home": ["red"], "away": ["x"]}},
            "no side's patterns match agent 'blue_0' of group 'b",
        ),
        (
            "self_play",
            {"sides": {"home": ["*"], "away": ["blue"]}},
            r"sharing.sides.away=\['blue'\] matches no agent that",
        ),
        ("self_play", {"pool_size": 1}, "sharing.pool_size must be at least 2, got 1"),
        ("self_play", {"replace": "newest"}, "sharing.replace must be one of crowded, oldest, got 'newest'"),
        ("self_play", {"mirror": 1.5}, "sharing.mirror must be between 0 and 1, got 1.5"),
        (
            "self_play",
            {"opponents": "best"},
            "sharing.opponents must be one of uniform, latest, prioritised, got 'best'",
        ),
        ("self_play", {"weighting": "soft"}, "sharing.weighting must be one of hard, variance, got 'soft'"),
        ("self_play", {"snapshot": {"win_rate": 0}}, "sharing.snapshot.win_rate must be above 0 and at most 1, got 0"),
        ("self_play", {"snapshot": {"every": 0}}, "sharing.snapshot.every must be at least 1, got 0"),
        ("self_play", {"elo_k": 0}, "sharing.elo_k must be above 0, got 0"),
        ("league", {"shares": {"past": 0.75}}, "sharing.shares must add up to 1, got 1.25"),
        ("league", {"freeze": {"max_steps": 10}}, "sharing.freeze.max_steps must be at least 50000, got 10"),
        ("league", {"main_agents": 0}, "sharing.main_agents must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        sides_of(TEAMS, sharing(name, **changes))


def test_sides_with_different_spaces_are_refused_with_the_reason():
    groups = (TEAMS[0], AgentGroup("blue", ("blue_0",), OTHER, TWO))
    with pytest.raises(ConfigError, match=r"sharing=self_play needs agents with equal spaces on all sides.*red.*blue"):
        sides_of(groups, sharing())


@pytest.fixture(scope="module")
def whole():
    return compose(["env=classic/tictactoe_v3", "sharing=self_play", "search.metric=self_play/elo"])[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": envs.default_config("mpe/simple_tag")}, "needs agents with equal spaces on all sides"),
        ({"search.metric": "return_mean_agent"}, "search.metric must be self_play/elo under sharing=self_play"),
        (
            {"search.metric": "evaluation/return_sum_team"},
            "search.metric must be self_play/elo under sharing=self_play",
        ),
        ({"sharing": SharingConfig("independent", {})}, "search.metric must be something else where nobody plays"),
        ({"cluster.rollout": "rllib"}, "cluster.rollout must be batched under sharing=self_play"),
        ({"space": {"env.workers": {"choice": [0]}}}, r"space.env.workers must be left out under sharing=self_play"),
        (
            {"sharing": sharing("league"), "cluster.num_envs_per_env_runner": 5},
            "cluster.num_envs_per_env_runner must be at least 6, 2 sides x 3 learners",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(whole, changes, message):
    changed = whole
    for key, value in changes.items():
        section, _, name = key.partition(".")
        part = dataclasses.replace(getattr(whole, section), **{name: value}) if name else value
        changed = dataclasses.replace(changed, **{section: part})
    check_self_play(whole)
    with pytest.raises(ConfigError, match=message):
        check_self_play(changed)


def test_the_command_line_refuses_returns(capsys):
    assert main(["env=classic/tictactoe_v3", "sharing=self_play"]) == 2
    assert "search.metric must be self_play/elo under sharing=self_play" in capsys.readouterr().err


def test_the_dry_run_names_learner_and_slots(capsys):
    assert main(["+experiment=tictactoe_self_play", "sharing.pool_size=3", "dry_run=true"]) == 0
    plan = capsys.readouterr().out
    rows = [line.split("(drawn each episode)")[1].split() for line in plan.splitlines() if "drawn each" in line]
    assert [row[0] for row in rows] == ["main", "opponent_0", "opponent_1", "opponent_2"]
    assert [row[2:] for row in rows] == [["Adam,", "lr", "0.001"], *[["nothing:", "frozen"]] * 3]


# -- who plays ---------------------------------------------------------------------------------------------------------


def test_sides_alternate_in_every_copy():
    matches = Matchmaker({"x": ("a", "b"), "o": ("c",)}, ["main"])
    matches.table = {"main": {"main": 0.0, "opponent_0": 1.0}}
    agents = ("a", "b", "c")
    groups = (AgentGroup("players", agents, BOX, TWO),)
    who = PolicyMap(groups, dict.fromkeys(agents, ("main", "opponent_0")), matches.draw, matches)
    assignment = Assignment(who, num_envs=3, seed=0)
    seen = []
    for _ in range(10):
        seen.append([assignment.module_numbers["players"][b].tolist() for b in range(3)])
        assignment.begin_episodes(np.array([0, 2]))
    x, o = [0, 0, 1], [1, 1, 0]  # main is module 0
    assert [row[0] for row in seen] == [x, o] * 5
    assert [row[2] for row in seen] == [x, o] * 5
    assert [row[1] for row in seen] == [o] * 10, "a copy that goes on keeps its players"


def test_learners_take_turns_and_each_plays_all_sides():
    matches = Matchmaker({"x": ("a",), "o": ("b",)}, ["main_0", "main_exploiter_0"])
    matches.table = {name: {"opponent_0": 1.0} for name in matches.learners}
    rng = np.random.default_rng(0)
    drawn = [tuple(matches.draw(rng, turn).values()) for turn in range(4)]
    other = "opponent_0"
    assert drawn == [("main_0", other), (other, "main_0"), ("main_exploiter_0", other), (other, "main_exploiter_0")]
    assert [matches.learner(turn) for turn in range(5)] == ["main_0"] * 2 + ["main_exploiter_0"] * 2 + ["main_0"]


def test_draws_have_the_tables_shares():
    matches = Matchmaker({"x": ("a",), "o": ("b",)}, ["main"])
    matches.table = {"main": {"main": 0.2, "opponent_0": 0.2, "opponent_1": 0.6, "opponent_2": 0.0}}
    rng = np.random.default_rng(0)
    opponents = [matches.draw(rng, turn)["b" if turn % 2 == 0 else "a"] for turn in range(4000)]
    shares = {name: opponents.count(name) / 4000 for name in set(opponents)}
    assert shares == pytest.approx({"main": 0.2, "opponent_0": 0.2, "opponent_1": 0.6}, abs=0.03)
    again = np.random.default_rng(0)
    assert opponents == [matches.draw(again, turn)["b" if turn % 2 == 0 else "a"] for turn in range(4000)]


def test_a_player_that_is_replaced_in_a_game_voids_it_until_the_next():
    who = PolicyMap(TEAMS, versus(TEAMS, sharing()), *draws(sharing()))
    who.matchmaker.table = {"main": {"opponent_3": 1.0}}
    assignment = Assignment(who, num_envs=2, seed=0)
    assignment.note_replaced(["opponent_4"])
    assert not assignment.replaced.any()
    assignment.note_replaced(["opponent_3"])
    assignment.begin_episodes(np.array([1]))
    assert assignment.replaced.tolist() == [True, False]


def draws(config):
    matches = matchmaker(TEAMS, config)
    return matches.draw, matches


def test_weights_of_prioritised_fictitious_self_play():
    rates = np.array([0.9, 0.5, 0.1])
    assert prioritised(rates, "hard", 2.0) == pytest.approx(np.array([0.01, 0.25, 0.81]) / 1.07)
    assert prioritised(rates, "hard", 0.0) == pytest.approx([1 / 3] * 3)
    assert prioritised(rates, "variance") == pytest.approx(np.array([0.09, 0.25, 0.09]) / 0.43)
    assert prioritised(rates, "capped") == pytest.approx(np.array([0.1, 0.5, 0.5]) / 1.1)
    assert prioritised(np.ones(4), "hard") == pytest.approx([0.25] * 4), "all are beaten: each as often"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"opponents": "uniform", "mirror": 0.1}, [0.1, 0.3, 0.3, 0.3]),
        ({"opponents": "latest", "mirror": 0}, [0, 0, 0, 1]),
        ({"opponents": "prioritised", "mirror": 0.5, "exponent": 1}, [0.5, 0.0, 0.25, 0.25]),
        ({"opponents": "prioritised", "mirror": 1}, [1, 0, 0, 0]),
    ],
)
def test_shares_of_each_scheme(changes, expected):
    config = sharing(**changes)
    pool = pool_of(config, filled=2)
    pool.add(games(pool, *[("main", "opponent_0", 1.0)] * 5))
    assert list(PastSelves(config).table(pool)["main"].values()) == pytest.approx(expected)


# -- ratings -----------------------------------------------------------------------------------------------------------


def test_elos_expectation():
    assert expected_score(0, 0) == 0.5
    assert expected_score(400, 0) == pytest.approx(10 / 11)
    assert expected_score(0, 200) == pytest.approx(0.2402, abs=1e-4)


def test_a_game_moves_the_learner_and_nobody_else():
    pool = pool_of(sharing(elo_k=32), filled=1)
    pool.add(games(pool, ("main", "opponent_0", 1.0)))
    assert pool.first.elo == 16.0
    pool.add(games(pool, ("opponent_1", "main", 0.0)))
    assert pool.first.elo == pytest.approx(16 + 32 * (0.5 - expected_score(16, 10)))
    before = pool.first.elo
    pool.add(games(pool, ("main", "main", 1.0)))
    assert pool.first.elo == before, "nobody wins against himself"
    assert [pool.slots[slot].elo for slot in pool.slots] == [0.0, 10.0]


def test_a_game_of_three_sides_is_judged_pair_by_pair_and_moves_k_at_most():
    config = sharing(elo_k=8)
    pool = pool_of(config, filled=1)
    pool.add(Games(np.array([[0, 1, 2]]), np.array([[2.0, 1.0, 1.0]]), np.array([9])))
    assert pool.first.elo == pytest.approx(4 * (1 - 0.5) + 4 * (1 - expected_score(0, 10)))
    assert pool.win_rates("main", ["opponent_0", "opponent_1"]).tolist() == [1.0, 1.0]
    assert pool.metrics()["game_length"] == 9


@pytest.mark.parametrize("strength", [-150.0, 0.0, 250.0])
def test_the_rating_of_a_constant_player_finds_its_strength(strength):
    pool = pool_of(sharing(elo_k=8))
    rng = np.random.default_rng(0)
    found = []
    for _ in range(3000):
        value = 1.0 if rng.random() < expected_score(strength, 0.0) else -1.0
        pool.add(games(pool, ("main", "opponent_0", value)))
        found.append(pool.first.elo)
    assert np.mean(found[1000:]) == pytest.approx(strength, abs=25)


def test_old_games_fade_and_unknown_pairs_are_even():
    payoff = Payoff(3)
    for result in (1.0, 0.0, 0.5):
        payoff.add(0, 1, result)
    weights = DECAY ** np.array([2, 1, 0])
    assert payoff.win_rates(0, [1, 2]) == pytest.approx([(weights @ [1, 0, 0.5]) / weights.sum(), 0.5])
    assert payoff.win_rates(1, [0]) == pytest.approx(1 - payoff.win_rates(0, [1]))
    payoff.forget(1)
    assert payoff.win_rates(0, [1]).tolist() == [0.5]


# -- copies ------------------------------------------------------------------------------------------------------------


def test_slots_are_filled_in_order_then_the_oldest_goes_and_the_first_stays():
    pool = pool_of(sharing(pool_size=3, replace="oldest"))
    taken = []
    for number in range(5):
        taken.append(pool.next_slot())
        pool.fill(taken[-1], "main", f"copy.{number}", 0.0, number, 0)
    assert taken == ["opponent_1", "opponent_2", "opponent_1", "opponent_2", "opponent_1"]
    assert [player.name for player in pool.slots.values()] == [UNTRAINED, "copy.4", "copy.3"]


def test_what_stays_in_a_full_pool_is_spread_over_the_whole_run():
    pool = pool_of(sharing(pool_size=11), filled=300)  # after steps 1, 2, …, 300
    kept = [player.steps for player in pool.slots.values()]
    assert kept[0] == 0, "the untrained policy"
    assert max(kept) == 300, "the newest"
    assert np.diff(sorted(kept)).max() <= 2.1 * 300 / 10, "ten copies, nearly evenly"


def test_each_learner_of_a_league_keeps_its_newest_copy():
    pool = pool_of(sharing("league", pool_size=4))
    for steps, learner in enumerate(("main_0", "main_exploiter_0", *["main_0"] * 20)):
        pool.fill(pool.next_slot(), learner, f"{learner}.{steps}", 0.0, 1, steps)
    assert {player.name for player in pool.slots.values()} >= {"main_exploiter_0.1", "main_0.21", UNTRAINED}


def test_a_copy_is_made_when_enough_of_the_newest_games_are_won():
    config = sharing(snapshot={"games": 20, "win_rate": 0.6})
    pool, scheme = pool_of(config), PastSelves(config)
    pool.add(games(pool, *[("main", "opponent_0", 1.0)] * 19))
    assert scheme.due(pool, 1, 0) == [], "too few games"
    pool.add(games(pool, *[("main", "main", 1.0)] * 9))
    assert scheme.due(pool, 1, 0) == [], "games against itself do not count"
    pool.add(games(pool, ("main", "opponent_0", 1.0)))
    assert scheme.due(pool, 1, 0) == [Freeze("main")]
    pool.frozen("main", 1, 0, anew=False)
    assert scheme.due(pool, 2, 0) == [], "the games of before made a copy already"
    pool.add(games(pool, *[("main", "opponent_0", 0.0)] * 30))
    assert scheme.due(pool, 3, 0) == [], "a draw is half a win"
    assert pool.metrics() == pytest.approx(
        {"elo": pool.first.elo, "win_rate": 0.5, "draw_rate": 1.0, "game_length": 5.0, "snapshots": 1}
    )


def test_a_copy_is_made_every_so_many_iterations():
    config = sharing(snapshot={"every": 3})
    pool, scheme = pool_of(config), PastSelves(config)
    assert [bool(scheme.due(pool, iteration, 0)) for iteration in (1, 2, 3)] == [False, False, True]
    pool.frozen("main", 3, 0, anew=False)
    assert [bool(scheme.due(pool, iteration, 0)) for iteration in (4, 5, 6)] == [False, False, True]


def test_a_restored_pool_is_the_same():
    config = sharing()
    first, second = pool_of(config, filled=2), pool_of(config)
    first.add(games(first, ("main", "opponent_1", 1.0), ("opponent_2", "main", 0.0)))
    first.rng.random(3)
    second.set_state(first.get_state())
    assert first.table() == second.table()
    assert first.metrics() == second.metrics()
    for pool in (first, second):
        pool.add(games(pool, ("main", "opponent_1", -1.0)))
    assert first.metrics() == second.metrics()
    assert first.rng.random() == second.rng.random()
    assert first.next_slot() == second.next_slot() == "opponent_3"
