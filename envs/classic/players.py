"""Scripted players of board games, to play against or to be measured by: they choose from what an agent observes."""

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

POWERS = 3 ** np.arange(9)  # of the cells in the number of a tic-tac-toe position: 0 empty, 1 own, 2 the other's


class BoardPlayer(ABC):
    """Plays for any agents of a board game, in all copies of its world at once, and remembers nothing of the games.

    Args:
        groups: the world's agent groups; each observes a Dict with `observation` and `action_mask`.
        seed: of the choice among moves that are equally good to it; None: a fresh one.

    Raises:
        ValueError: for a group that observes something else.
    """

    def __init__(self, groups: Sequence[AgentGroup], seed: int | Sequence[int] | None = None):
        for group in groups:
            space = group.observation_space
            if not isinstance(space, gym.spaces.Dict) or {OBSERVATION, ACTION_MASK} - set(space.keys()):
                raise ValueError(f"a scripted player needs {OBSERVATION} and {ACTION_MASK}, {group.name} has {space}")
        self.groups = tuple(groups)
        self._rng = np.random.default_rng(seed)

    def act(self, observations: Mapping[str, Mapping[str, np.ndarray]], acting: Mapping[str, np.ndarray]) -> Actions:
        """Decides for those that act.

        Args:
            observations: group -> observation (B, N, ...) and action_mask (B, N, A).
            acting: group -> (B, N) bool.

        Returns:
            Group -> actions (B, N) int64; zeros for those that do not act.
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
        """The moves to choose from at random.

        Args:
            board: (R, ...) observations.
            legal: (R, A) bool.

        Returns:
            (R, A) bool, some of the legal ones.
        """

    def get_state(self) -> dict[str, object]:
        """Where its generator stands."""
        return dict(self._rng.bit_generator.state)

    def set_state(self, state: dict[str, object]) -> None:
        """Goes on from where `get_state` was called."""
        self._rng.bit_generator.state = state


class RandomPlayer(BoardPlayer):
    """Makes any legal move, all with the same chance."""

    def _candidates(self, board: np.ndarray, legal: np.ndarray) -> np.ndarray:
        return legal


class OnePly(BoardPlayer):
    """Wins where a move wins; else takes a cell on which the other would win with its next move; else plays at random.

    A subclass says of which game.
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
        """Whether one more piece makes a full line: pieces (R, cells) of one player, the cell of each action (R, A)."""
        lines = self._lines_through[cells]  # (R, A, length, lines)
        rows = np.arange(len(pieces))[:, None, None, None]
        return (pieces[rows, lines] | (lines == cells[..., None, None])).all(axis=2).any(axis=2)

    @abstractmethod
    def _cells(self, taken: np.ndarray) -> np.ndarray:
        """The cell of each action, of taken cells (R, cells) bool: (R, A); any where an action is not legal."""


class ConnectFourOnePly(OnePly):
    """`OnePly` of connect four; it does not see what a piece of its own lets the other put on top of it."""

    NUM_CELLS = ConnectFour.ROWS * ConnectFour.COLUMNS
    LINES = board_lines(ConnectFour.ROWS, ConnectFour.COLUMNS, ConnectFour.IN_A_ROW)

    def _cells(self, taken: np.ndarray) -> np.ndarray:
        columns = np.arange(ConnectFour.COLUMNS)
        empty = (~taken).reshape(-1, ConnectFour.ROWS, ConnectFour.COLUMNS).sum(axis=1)
        return (empty - 1) * ConnectFour.COLUMNS + columns


class TictactoeOnePly(OnePly):
    """`OnePly` of tic-tac-toe."""

    NUM_CELLS = Tictactoe.NUM_ACTIONS
    LINES = board_lines(Tictactoe.ROWS, Tictactoe.COLUMNS, Tictactoe.IN_A_ROW)

    def _cells(self, taken: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.arange(self.NUM_CELLS), taken.shape)


class TictactoePerfect(BoardPlayer):
    """Chooses among the moves of tic-tac-toe that are the best against a perfect player; so it never loses."""

    def _candidates(self, board: np.ndarray, legal: np.ndarray) -> np.ndarray:
        digits = board.reshape(-1, len(POWERS), 2).astype(np.int64) @ (1, 2)  # (R, cells)
        return best_moves()[digits @ POWERS] & legal


@cache
def best_moves() -> np.ndarray:
    """By minimax: (3 ** 9, 9) bool, of each position of tic-tac-toe, numbered as by `POWERS`, the moves of the highest
    value; none of a position that is over or cannot come up. Made once, in some 50 ms."""
    table = np.zeros((3 ** len(POWERS), len(POWERS)), np.bool_)
    lines = [sum(1 << cell for cell in line) for line in TictactoeOnePly.LINES.tolist()]

    @cache
    def value(mine: int, theirs: int) -> int:
        """1, 0 or -1 for who is to move, once both play perfectly."""
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
