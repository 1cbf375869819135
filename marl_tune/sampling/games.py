"""From finished episodes to games: which module played which side, and the return of each side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from marl_tune.sampling.episode_metrics import EpisodeRecord
from marl_tune.sharing.policy_map import PolicyMap

WIN, DRAW, LOSS = 1.0, 0.5, 0.0  # results of a game for one side


def games_of(records: Sequence[EpisodeRecord], policy_map: PolicyMap) -> Games:
    """Returns the games among these episodes. An episode in which a module got other weights is no game."""
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
    """Finished games, oldest first.

    >>> games = Games(players=np.array([[0, 1]]), returns=np.array([[1.0, -1.0]]), lengths=np.array([9]))
    >>> len(games), result_of(*games.returns[0])  # module 0 has won
    (1, 1.0)
    """

    players: np.ndarray  # (games, sides) int: number of the module that played the side
    returns: np.ndarray  # (games, sides) float: extrinsic return, summed over the side's agents
    lengths: np.ndarray  # (games,) int: timesteps

    def __len__(self) -> int:
        return len(self.lengths)


def result_of(own: float, other: float) -> float:
    """Returns WIN, DRAW or LOSS for a side with the return `own` against a side with the return `other`."""
    if own == other:
        return DRAW
    return WIN if own > other else LOSS


def returns_of(sides: Iterable[Sequence[str]], returns: Mapping[str, float] | Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the return of each side, the sum over its agents.

    Args:
        sides: the agents of each side.
        returns: agent -> return of one game, or (games,) returns.

    Returns:
        (sides,), or (sides, games).
    """
    return np.array([sum(returns[agent] for agent in agents) for agents in sides])


def results_of(returns: np.ndarray, side: int) -> np.ndarray:
    """Returns the mean result of a side against each of the other sides, game by game.

    Args:
        returns: (sides, games).
        side: number of the side.

    Returns:
        (games,) in [0, 1].
    """
    others = np.delete(returns, side, axis=0)
    return np.mean(np.where(returns[side] > others, WIN, np.where(returns[side] == others, DRAW, LOSS)), axis=0)
