"""Scripted players of board games, as opponents and for comparison. They choose moves from agents' observations."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import ClassVar

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import Actions, AgentGroup
from marl_tune.envs.classic.board import ACTION_MASK, OBSERVATION, board_lines, lines_through
from marl_tune.envs.classic.connect_four import ConnectFour
from marl_tune.envs.classic.tictactoe import Tictactoe

POWERS = 3 ** np.arange(9)
# weights of the cells in the number of a tic-tac-toe position; digit of a cell: 0 empty, 1 own, 2 the other's


class BoardPlayer(ABC):
    """Base of the scripted players. A player acts for one or more agents in all copies of a world, and has no memory.

    Args:
        groups: the world's agent groups; each observes a Dict with `observation` and `action_mask`.
        seed: of the choice among equally good moves; None: a random seed.

    Raises:
        ValueError: for a group with other observations.
    """

    def __init__(self, groups: Sequence[AgentGroup], seed: int | Sequence[int] | None = None):
        for group in groups:
            space = group.observation_space
            if not isinstance(space, gym.spaces.Dict) or {OBSERVATION, ACTION_MASK} - set(space.keys()):
                raise ValueError(f"a scripted player needs {OBSERVATION} and {ACTION_MASK}, {group.name} has {space}")
        self.groups = tuple(groups)
        self._rng = np.random.default_rng(seed)

    def act(self, observations: Mapping[str, Mapping[str, np.ndarray]], acting: Mapping[str, np.ndarray]) -> Actions:
        """Chooses the actions of the agents that act.

        Args:
            observations: group -> observation (B, N, ...) and action_mask (B, N, A).
            acting: group -> (B, N) bool.

        Returns:
            Group -> actions (B, N) int64; zeros for agents that do not act.
        """
        actions = {name: np.zeros(acts.shape, np.int64) for name, acts in acting.items()}
        for name, acts in acting.items():
            seen = observations[name]
            candidates = self._candidates(seen[OBSERVATION][acts], seen[ACTION_MASK][acts] > 0)  # (R, A)
            noise = self._rng.random(candidates.shape)
            actions[name][acts] = np.where(candidates, noise, -1.0).argmax(axis=-1)
        return actions

    @abstractmethod
    def _candidates(self, board: np.ndarray, legal: np.ndarray) -> np.ndarray:
        """The moves among which the player chooses at random.

        Args:
            board: (R, ...) observations.
            legal: (R, A) bool.

        Returns:
            (R, A) bool: one or more of the legal moves.
        """

    def get_state(self) -> dict[str, object]:
        """The state of the random generator."""
        return dict(self._rng.bit_generator.state)

    def set_state(self, state: dict[str, object]) -> None:
        """Restores a state that `get_state` returned."""
        self._rng.bit_generator.state = state


class RandomPlayer(BoardPlayer):
    """Chooses any legal move, all with the same probability."""

    def _candidates(self, board: np.ndarray, legal: np.ndarray) -> np.ndarray:
        return legal


class OnePly(BoardPlayer):
    """Looks one move ahead: it makes a winning move, else a move that blocks the other's winning move, else a random
    one.

    A subclass defines the lines of a game and the cells of its actions.
    """

    LINES: ClassVar[np.ndarray]  # (lines, pieces in a row that win) cells
    NUM_CELLS: ClassVar[int]

    def __init__(self, groups: Sequence[AgentGroup], seed: int | Sequence[int] | None = None):
        super().__init__(groups, seed)
        self._lines_through = lines_through(self.LINES, self.NUM_CELLS)  # (cells, length, lines)

    def _candidates(self, board: np.ndarray, legal: np.ndarray) -> np.ndarray:
        pieces = board.reshape(-1, self.NUM_CELLS, 2).astype(np.bool_)  # (R, cells, own or the other's)
        taken = pieces[..., 0] | pieces[..., 1]
        cells = np.where(legal, self._cells(taken), 0)  # (R, A)
        wins, blocks = (legal & self._completes(pieces[..., whose], cells) for whose in (0, 1))
        best = np.where(wins.any(axis=1, keepdims=True), wins, blocks)
        return np.where(best.any(axis=1, keepdims=True), best, legal)

    def _completes(self, pieces: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Whether one more piece completes a line: pieces of one player (R, cells), cells of actions (R, A) -> (R, A)
        bool."""
        lines = self._lines_through[cells]  # (R, A, length, lines)
        rows = np.arange(len(pieces))[:, None, None, None]
        return (pieces[rows, lines] | (lines == cells[..., None, None])).all(axis=2).any(axis=2)

    @abstractmethod
    def _cells(self, taken: np.ndarray) -> np.ndarray:
        """The cell of each action: taken cells (R, cells) bool -> (R, A). Undefined for actions that are not legal."""


class ConnectFourOnePly(OnePly):
    """`OnePly` for connect four. It ignores that its own piece may enable a winning piece on top of it."""

    NUM_CELLS = ConnectFour.ROWS * ConnectFour.COLUMNS
    LINES = board_lines(ConnectFour.ROWS, ConnectFour.COLUMNS, ConnectFour.IN_A_ROW)

    def _cells(self, taken: np.ndarray) -> np.ndarray:
        columns = np.arange(ConnectFour.COLUMNS)
        empty = (~taken).reshape(-1, ConnectFour.ROWS, ConnectFour.COLUMNS).sum(axis=1)
        return (empty - 1) * ConnectFour.COLUMNS + columns


class TictactoeOnePly(OnePly):
    """`OnePly` for tic-tac-toe."""

    NUM_CELLS = Tictactoe.NUM_ACTIONS
    LINES = board_lines(Tictactoe.ROWS, Tictactoe.COLUMNS, Tictactoe.IN_A_ROW)

    def _cells(self, taken: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.arange(self.NUM_CELLS), taken.shape)


class TictactoePerfect(BoardPlayer):
    """Chooses among the moves of tic-tac-toe that are best against a perfect player. It never loses."""

    def _candidates(self, board: np.ndarray, legal: np.ndarray) -> np.ndarray:
        digits = board.reshape(-1, len(POWERS), 2).astype(np.int64) @ (1, 2)  # (R, cells)
        return best_moves()[digits @ POWERS] & legal


@cache
def best_moves() -> np.ndarray:
    """The moves with the highest minimax value in each position of tic-tac-toe, (3 ** 9, 9) bool.

    Positions are numbered by `POWERS`. Positions that are over or impossible have no moves. The table is computed once,
    in about 50 ms.
    """
    table = np.zeros((3 ** len(POWERS), len(POWERS)), np.bool_)
    lines = [sum(1 << cell for cell in line) for line in TictactoeOnePly.LINES.tolist()]

    @cache
    def value(mine: int, theirs: int) -> int:
        """1, 0 or -1: the result for the player to move if both play perfectly."""
        if any(theirs & line == line for line in lines):
            return -1
        moves = [cell for cell in range(len(POWERS)) if not (mine | theirs) >> cell & 1]
        if not moves:
            return 0
        values = [-value(theirs, mine | 1 << cell) for cell in moves]
        number = sum(int(POWERS[c]) * ((mine >> c & 1) + 2 * (theirs >> c & 1)) for c in range(len(POWERS)))
        table[number, moves] = np.array(values) == max(values)
        return max(values)

    value(0, 0)
    return table
