"""How a league is matched, frozen and reset, without a trial."""

import numpy as np
import pytest
from pool_probes import games, pool_of, sharing

from marl_tune.self_play.league import Freeze, League


def league_pool(**copies):
    """A league's pool; learner -> how many frozen copies it has."""
    config = sharing("league")
    pool = pool_of(config)
    for learner, count in copies.items():
        for number in range(count):
            pool.fill(pool.next_slot(), learner, f"{learner}.{number}", 0.0, number + 1, 0)
    return config, pool


def test_a_young_league_plays_itself_and_the_untrained_policy():
    config, pool = league_pool()
    table = League(config).table(pool)
    assert table["main_0"] == pytest.approx({"opponent_0": 0.5, "main_0": 0.5}), "nobody to verify"
    assert table["main_exploiter_0"] == {"main_0": 1.0}
    assert table["league_exploiter_0"] == {"opponent_0": 1.0}


def test_exploiters_that_still_win_are_verified():
    config, pool = league_pool(main_0=1, main_exploiter_0=2)
    pool.add(games(pool, *[("main_0", "opponent_0", 1.0)] * 9, *[("main_0", "opponent_1", 1.0)] * 9))
    pool.add(games(pool, *[("main_0", "opponent_2", -1.0)] * 9, *[("main_0", "opponent_3", 1.0)] * 9))
    shares = League(config).table(pool)["main_0"]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares == pytest.approx(
        {"opponent_0": 0, "opponent_1": 0, "opponent_2": 0.65, "opponent_3": 0, "main_0": 0.35}
    )


def test_forgotten_selves_are_verified():
    """Against its copies it has 1, 0, 1 and 0.5: the second was forgotten, the last is merely the newest."""
    config, pool = league_pool(main_0=4)
    for slot, value in (("opponent_0", 1.0), ("opponent_1", 1.0), ("opponent_2", -1.0), ("opponent_3", 1.0)):
        pool.add(games(pool, *[("main_0", slot, value)] * 9))
    shares = League(config).table(pool)["main_0"]
    past = 0.5 / 1.25
    assert shares["opponent_2"] == pytest.approx(past + 0.15)
    assert shares["opponent_4"] == pytest.approx(past * 0.25)


def test_a_hopeless_exploiter_plays_the_past_of_its_prey():
    config, pool = league_pool(main_0=1, league_exploiter_0=1)
    pool.add(games(pool, *[("main_exploiter_0", "main_0", -1.0)] * 9))
    shares = League(config).table(pool)["main_exploiter_0"]
    assert shares == pytest.approx({"opponent_0": 0.5, "opponent_1": 0.5}), "not the league exploiter's copy"


def test_when_learners_of_a_league_are_frozen_and_reset():
    config, pool = league_pool()
    scheme = League(config)
    assert scheme.due(pool, 1, 49_000) == []
    pool.add(games(pool, *[("main_exploiter_0", "main_0", 1.0)] * 9))
    assert scheme.due(pool, 1, 49_000) == [], "too soon"
    assert scheme.due(pool, 1, 50_000) == [Freeze("main_exploiter_0", anew=True)]
    pool.frozen("main_exploiter_0", 1, 50_000, anew=True)
    assert pool.learners["main_exploiter_0"].elo == 0.0
    assert pool.win_rates("main_exploiter_0", ["main_0"]).tolist() == [0.5], "its games are forgotten"
    pool.add(games(pool, *[("main_0", "opponent_0", 1.0)] * 9))
    assert scheme.due(pool, 2, 60_000) == [Freeze("main_0")], "a main agent is never reset"
    pool.frozen("main_0", 2, 60_000, anew=False)
    anew = [scheme.due(pool, 3, 200_000)[-1].anew for _ in range(400)]
    assert scheme.due(pool, 3, 200_000)[-1].learner == "league_exploiter_0", "at the latest after max_steps"
    assert np.mean(anew) == pytest.approx(0.25, abs=0.06)
