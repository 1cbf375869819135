"""From finished episodes to games: which module played which side, and what each side got."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marl_tune.sampling.episode_metrics import EpisodeRecord
from marl_tune.sharing.policy_map import PolicyMap

WIN, DRAW, LOSS = 1.0, 0.5, 0.0


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


@dataclass(frozen=True)
class Games:
    """Finished games, oldest first."""

    players: np.ndarray  # (games, sides) int: number of the module that played the side
    returns: np.ndarray  # (games, sides) float: extrinsic, summed over the side's agents
    lengths: np.ndarray  # (games,) int: steps of the world

    def __len__(self) -> int:
        return len(self.lengths)


def result_of(own: float, other: float) -> float:
    """The result of a side with the return `own` against one with `other`."""
    if own == other:
        return DRAW
    return WIN if own > other else LOSS


def returns_of(sides: Iterable[Sequence[str]], returns: Mapping[str, Any]) -> np.ndarray:
    """(sides, ...) sum of its agents' returns; `returns`: agent -> number, or (games,)."""
    return np.array([sum(returns[agent] for agent in agents) for agents in sides])


def results_of(returns: np.ndarray, side: int) -> np.ndarray:
    """(games,) mean result of a side against each of the others, [0, 1]. `returns`: (sides, games)."""
    others = np.delete(returns, side, axis=0)
    return np.mean(np.where(returns[side] > others, WIN, np.where(returns[side] == others, DRAW, LOSS)), axis=0)
