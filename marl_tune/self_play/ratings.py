"""Results of games between players, and the ratings that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from marl_tune.sampling.games import DRAW, WIN

DECAY = 0.99  # of a pair's older games with each new one, as in the pseudocode of Vinyals et al. 2019: learners change
UNKNOWN = 0.5  # win rate of a pair that has not played


def expected_score(elo: float, opponent: float) -> float:
    """Mean result that ratings predict: 1 / (1 + 10^((R_opponent - R) / 400)) (Elo 1978, The Rating of Chessplayers).

    Ratings are in points, and only their difference counts: 200 points more give 0.76, 400 give 0.91.
    """
    return float(1.0 / (1.0 + 10.0 ** ((opponent - elo) / 400.0)))


def both_ways(first: int, second: int, result: float) -> tuple[tuple[int, int, float], tuple[int, int, float]]:
    """A game from each player's side: (player, opponent, own result)."""
    return (first, second, result), (second, first, 1 - result)


class PayoffState(TypedDict):
    """What a checkpoint keeps: (players, players) each, the row's player against the column's."""

    games: np.ndarray
    wins: np.ndarray
    draws: np.ndarray


class Payoff:
    """The results of each pair of players. With each new game of a pair, its older games count `DECAY` times as much.

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
        """Deletes all games of a player number, which stands for another player from now on."""
        for table in (self.games, self.wins, self.draws):
            table[player], table[:, player] = 0, 0

    def get_state(self) -> PayoffState:
        """Copies of the tables, for `set_state`."""
        return {"games": self.games.copy(), "wins": self.wins.copy(), "draws": self.draws.copy()}

    def set_state(self, state: PayoffState) -> None:
        """Restores an earlier `get_state`."""
        self.games, self.wins, self.draws = state["games"].copy(), state["wins"].copy(), state["draws"].copy()
