"""Tic-tac-toe: two players mark cells of a square. Three own marks in a line win."""

from dataclasses import dataclass

import numpy as np

from marl_tune.envs.classic.board import Board
from marl_tune.envs.classic.board_render import draw_tictactoe
from marl_tune.envs.curriculum import WorldConfig


@dataclass
class TictactoeConfig(WorldConfig):
    """There are no settings: the board has its usual size."""

    name: str
    # stem of the world: classic/tictactoe


class Tictactoe(Board):
    """Tic-tac-toe on B boards at once. It equals PettingZoo's tictactoe_v3: the same actions lead to the same
    observations, rewards and ends, bit by bit.

    Description:
        Two players in turn mark one of 3 x 3 cells. `player_1` begins, with crosses.

    Actions (Discrete(9)):
        The cell, numbered row by row as in the observation. (PettingZoo numbers and draws the cells column by column.
        On a square board this is the same game.)

    Observations (Dict), of the player to move, and of both players when the game is over:
        | key | type | meaning |
        |---|---|---|
        | observation | Box, int8, (3, 3, 2) | [row, column, plane]; plane 0: own marks, 1: the other's |
        | action_mask | Box, int8, (9,) | 1 for an empty cell |

    Rewards:
        1 for three own marks in a row, a column or a diagonal, and -1 for the other player. -1 for a mark on a cell
        that is not empty, which ends the game; 0 for the other player.

    Start:
        An empty board, whatever the seed.

    End:
        Terminated by three in a line, by a full board, or by a mark on a cell that is not empty.

    Metrics:
        `first_player_wins`, `second_player_wins`, `draws`, `illegal_moves`: 1 if the episode ended so, else 0.

    Arguments:
        config: the settings, of which there are none but the name.
        num_envs: B, the number of copies.

    Source:
        The rules of PettingZoo 1.25. Outside of this framework, use `pettingzoo.classic.tictactoe_v3`.
    """

    Config = TictactoeConfig
    AGENTS = ("player_1", "player_2")
    ROWS, COLUMNS, IN_A_ROW, NUM_ACTIONS = 3, 3, 3, 9

    def _first_cells(self) -> np.ndarray:
        return np.arange(self.NUM_ACTIONS)

    def _next_cells(self, cells: np.ndarray) -> np.ndarray:
        return np.full(len(cells), -1)

    def render(self, copy: int = 0) -> np.ndarray:
        """The board, crosses and circles, `(height, width, 3)` uint8 pixels; the winning line is highlighted."""
        return draw_tictactoe(self._board[copy].reshape(self.ROWS, self.COLUMNS), self._winning_cells(copy))
