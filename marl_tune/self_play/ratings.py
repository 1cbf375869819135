"""Results of games between players, and the ratings that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from marl_tune.sampling.games import DRAW, WIN

DECAY = 0.99  # of a pair's older games with each new one, as in the pseudocode of Vinyals et al. 2019: learners change
UNKNOWN = 0.5  # win rate of a pair that has not played


def expected_score(elo: float, opponent: float) -> float:
    """Mean result that ratings promise: 1 / (1 + 10^((R_opponent - R) / 400)) (Elo 1978, The Rating of Chessplayers).

    Ratings in points; the difference is all that counts: 200 points more are 0.76, 400 are 0.91.
    """
    return float(1.0 / (1.0 + 10.0 ** ((opponent - elo) / 400.0)))


def both_ways(first: int, second: int, result: float) -> tuple[tuple[int, int, float], tuple[int, int, float]]:
    """A game as each of its two players sees it: (player, opponent, own result)."""
    return (first, second, result), (second, first, 1 - result)


class Payoff:
    """How each pair of players has done against each other; older games count less, by `DECAY` a game.

    Args:
        players: how many there are; they are numbers from 0 on.
    """

    def __init__(self, players: int):
        self.games = np.zeros((players, players))
        self.wins, self.draws = np.zeros_like(self.games), np.zeros_like(self.games)

    def add(self, first: int, second: int, result: float) -> None:
        """Takes in the result of `first` against `second`."""
        for home, away, score in both_ways(first, second, result):
            for table in (self.games, self.wins, self.draws):
                table[home, away] *= DECAY
            self.games[home, away] += 1
            self.wins[home, away] += score == WIN
            self.draws[home, away] += score == DRAW

    def win_rates(self, player: int, opponents: Sequence[int]) -> np.ndarray:
        """(opponents,) of the player against each, a draw counted half; 0.5 where they have not played."""
        games = self.games[player, opponents]
        points = self.wins[player, opponents] + 0.5 * self.draws[player, opponents]
        return np.where(games > 0, points / np.maximum(games, 1e-12), UNKNOWN)

    def forget(self, player: int) -> None:
        """Drops all games of a player that is another one from now on."""
        for table in (self.games, self.wins, self.draws):
            table[player], table[:, player] = 0, 0

    def get_state(self) -> dict[str, Any]:
        """What `set_state` takes back."""
        return {"games": self.games.copy(), "wins": self.wins.copy(), "draws": self.draws.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes back to what `get_state` returned."""
        self.games, self.wins, self.draws = (state[name].copy() for name in ("games", "wins", "draws"))
