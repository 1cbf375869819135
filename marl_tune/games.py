"""From finished episodes to games: which module played which side, and what each side got."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from marl_tune.policy_map import PolicyMap
from marl_tune.ratings import Games
from marl_tune.rollout import EpisodeRecord

GAMES = "finished_games"  # list of (number of the runner, Games), oldest first


def games_of(records: Sequence[EpisodeRecord], policy_map: PolicyMap) -> Games:
    """The games among these episodes; left out are those in which a module was replaced by another one."""
    assert policy_map.matchmaker is not None
    sides = policy_map.matchmaker.sides
    number = {module_id: n for n, module_id in enumerate(policy_map.module_ids)}
    counted = [record for record in records if record.modules]
    players = [[number[record.modules[agents[0]]] for agents in sides.values()] for record in counted]
    returns = [[sum(record.returns[agent] for agent in agents) for agents in sides.values()] for record in counted]
    return Games(
        np.array(players, np.int64).reshape(-1, len(sides)),
        np.array(returns, np.float64).reshape(-1, len(sides)),
        np.array([record.length for record in counted], np.int64),
    )


def taken(sampled: dict[str, Any]) -> list[Games]:
    """Takes the games out of what the runners report: runner by runner, each one's in their order."""
    found = sampled.pop(GAMES, [])
    of_runners = [found] if isinstance(found, tuple) else found  # RLlib takes a lone item out of its list
    return [games for _, games in sorted(of_runners, key=itemgetter(0))]
