"""Pools of self-play without a trial, and games that are told to them."""

from pathlib import Path

import numpy as np
import yaml

from marl_tune.config.convert import build_option
from marl_tune.sampling.games import Games
from marl_tune.self_play.pool import UNTRAINED, Pool
from marl_tune.sharing.game_sides import learners_of, slots_of

CONF = Path(__file__).parents[2] / "conf" / "sharing"


def sharing(name="self_play", **changes):
    """The shipped settings with changes; a dict changes some fields of a section, but for `sides`."""
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    del values["defaults"]
    for key, value in changes.items():
        whole = key == "sides" or not isinstance(value, dict)
        values[key] = value if whole else values[key] | value
    return build_option("sharing", values)


def pool_of(config, filled=0):
    """A pool with the untrained policy and so many copies of the first learner, each 10 points better."""
    pool = Pool(list(learners_of(config)), slots_of(config), config.elo_k, config.replace, 20, seed=0)
    pool.fill(pool.slot_ids[0], UNTRAINED, UNTRAINED, 0.0, 0, 0)
    for number in range(filled):
        pool.fill(pool.next_slot(), pool.first.id, f"copy.{number}", 10.0 * (number + 1), number + 1, number + 1)
    return pool


def games(pool, *played, length=5):
    """Each game: (player, player, return of the first); zero-sum."""
    numbers = [[pool.ids.index(a), pool.ids.index(b)] for a, b, _ in played]
    returns = [[value, -value] for *_, value in played]
    return Games(np.array(numbers), np.array(returns), np.full(len(played), length))
