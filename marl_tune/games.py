"""From finished episodes to games: which module played which side, and what each side got."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marl_tune.ratings import Games, returns_of
from marl_tune.rollout import EpisodeRecord
from marl_tune.sharing.policy_map import PolicyMap


def games_of(records: Sequence[EpisodeRecord], policy_map: PolicyMap) -> Games:
    """The games among these episodes; left out are those in which a module was replaced by another one."""
    assert policy_map.matchmaker is not None
    sides = policy_map.matchmaker.sides
    number = {module_id: n for n, module_id in enumerate(policy_map.module_ids)}
    counted = [record for record in records if record.modules]
    players = [[number[record.modules[agents[0]]] for agents in sides.values()] for record in counted]
    returns = [returns_of(sides.values(), record.returns) for record in counted]
    return Games(
        np.array(players, np.int64).reshape(-1, len(sides)),
        np.array(returns, np.float64).reshape(-1, len(sides)),
        np.array([record.length for record in counted], np.int64),
    )
