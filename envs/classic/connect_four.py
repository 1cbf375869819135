"""Connect four: two players drop pieces into columns. Four own pieces in a line win."""

from dataclasses import dataclass

import numpy as np

from marl_tune.envs.classic.board import Board
from marl_tune.envs.classic.board_render import draw_connect_four
from marl_tune.envs.curriculum import WorldConfig


@dataclass
class ConnectFourConfig(WorldConfig):
    """There are no settings: the board has its usual size."""

    name: str
    # stem of the world: classic/connect_four


class ConnectFour(Board):
    """Connect four on B boards at once. It equals PettingZoo's connect_four_v3: the same actions lead to the same
    observations, rewards and ends, bit by bit.

    Description:
        Two players in turn drop a piece into one of 7 columns of 6 cells. It falls to the lowest empty cell. `player_0`
        begins.

    Actions (Discrete(7)):
        The column, 0 to 6 from left to right.

    Observations (Dict), of the player to move, and of both players when the game is over:
        | key | type | meaning |
        |---|---|---|
        | observation | Box, int8, (6, 7, 2) | [row from the top, column, plane]; plane 0: own pieces, 1: the other's |
        | action_mask | Box, int8, (7,) | 1 for a column that is not full |

    Rewards:
        1 for four own pieces in a line (a row, a column or a diagonal), and -1 for the other player. -1 for a move into
        a full column, which ends the game; 0 for the other player.

    Start:
        An empty board, whatever the seed.

    End:
        Terminated by four in a line, by a full board, or by a move into a full column.

    Metrics:
        `first_player_wins`, `second_player_wins`, `draws`, `illegal_moves`: 1 if the episode ended so, else 0.

    Arguments:
        config: the settings, of which there are none but the name.
        num_envs: B, the number of copies.

    Source:
        The rules of PettingZoo 1.25. Outside of this framework, use `pettingzoo.classic.connect_four_v3`.
    """

    Config = ConnectFourConfig
    AGENTS = ("player_0", "player_1")
    ROWS, COLUMNS, IN_A_ROW, NUM_ACTIONS = 6, 7, 4, 7

    def _first_cells(self) -> np.ndarray:
        return (self.ROWS - 1) * self.COLUMNS + np.arange(self.COLUMNS)

    def _next_cells(self, cells: np.ndarray) -> np.ndarray:
        return cells - self.COLUMNS

    def render(self, copy: int = 0) -> np.ndarray:
        """The board from the front, `(height, width, 3)` uint8 pixels; the winning line has rings."""
        return draw_connect_four(self._board[copy].reshape(self.ROWS, self.COLUMNS), self._winning_cells(copy))
