"""Base of board games for two players who place pieces in turn. A full line of own pieces wins."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import Actions, AgentGroup, Observations
from marl_tune.envs.array_world import ArrayWorld
from marl_tune.envs.curriculum import WorldConfig
from marl_tune.envs.groups import checked_actions
from marl_tune.envs.world import STAYS, TERMINATED, Step, WorldState, resolve_reset

GROUP = "player"
OBSERVATION, ACTION_MASK = "observation", "action_mask"  # keys of a player's observation
NOT_BEGUN, PLAYED, WON, DRAWN, ILLEGAL = range(5)  # state of a game; the last three are ends
ILLEGAL_REWARD = -1.0  # for the player who makes an illegal move, as in PettingZoo; the other one gets 0
PLANES = np.array((((0, 0), (1, 0), (0, 1)), ((0, 0), (0, 1), (1, 0))), np.int8)
# (player, piece, plane): entries of a player's planes for a cell with no piece, or one of the first or second player


def board_lines(rows: int, columns: int, length: int) -> np.ndarray:
    """All straight lines of `length` adjacent cells: (lines, length) cell numbers, `row * columns + column`."""
    lines = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for row in range(rows):
            for column in range(columns):
                cells = [(row + k * down, column + k * right) for k in range(length)]
                if all(0 <= r < rows and 0 <= c < columns for r, c in cells):
                    lines.append([r * columns + c for r, c in cells])
    return np.array(lines)


def lines_through(lines: np.ndarray, num_cells: int) -> np.ndarray:
    """The lines through each cell, (cells, length, lines). A cell with fewer lines than others repeats its first
    one."""
    of_cell = [lines[(lines == cell).any(axis=1)] for cell in range(num_cells)]
    number = np.arange(max(map(len, of_cell)))
    return np.stack([own[np.where(number < len(own), number, 0)].T for own in of_cell])


class Board(ArrayWorld):
    """B boards on which two players place pieces in turn. The first of `AGENTS` begins.

    A subclass defines the size of the board, the length of a winning line, and the cell of an action's next piece.
    Cells are numbered `row * COLUMNS + column`.
    """

    AGENTS: ClassVar[tuple[str, str]]
    ROWS: ClassVar[int]
    COLUMNS: ClassVar[int]
    IN_A_ROW: ClassVar[int]  # length of a winning line
    NUM_ACTIONS: ClassVar[int]

    def __init__(self, config: WorldConfig, num_envs: int = 1):
        self.config, self.num_envs = config, num_envs
        bits = {OBSERVATION: (self.ROWS, self.COLUMNS, 2), ACTION_MASK: (self.NUM_ACTIONS,)}
        seen = gym.spaces.Dict({key: gym.spaces.Box(0, 1, shape, np.int8) for key, shape in bits.items()})
        self.groups = (AgentGroup(GROUP, self.AGENTS, seen, gym.spaces.Discrete(self.NUM_ACTIONS)),)
        self._rngs = []  # the game has no randomness
        num_cells = self.ROWS * self.COLUMNS
        self._lines = board_lines(self.ROWS, self.COLUMNS, self.IN_A_ROW)
        self._lines_through = lines_through(self._lines, num_cells)
        self._copies, self._first_of_copy = np.arange(num_envs), num_cells * np.arange(num_envs)
        self._views = PLANES.reshape(-1).view(np.int16)  # (player * 3 + piece,): both planes of a cell as one number
        self._board = np.zeros((num_envs, num_cells), np.int8)  # 0: empty, 1, 2: of that player
        self._landing = np.tile(self._first_cells(), (num_envs, 1))  # (B, actions) cell of each action's next piece
        self._turn = np.zeros(num_envs, np.int64)  # 0, 1: the player to move; in a finished game, the last mover
        self._standing = np.full(num_envs, NOT_BEGUN, np.int8)
        self._note_who_acts()

    @abstractmethod
    def _first_cells(self) -> np.ndarray:
        """The cell of the first piece of each action, (actions,)."""

    @abstractmethod
    def _next_cells(self, cells: np.ndarray) -> np.ndarray:
        """The cell of an action's next piece, from the cell of its last one: (K,) -> (K,). Below 0: there is none."""

    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """See `World.reset`: an empty board. The observations of copies that have never been reset are zeros."""
        chosen = [copy for copy, _ in resolve_reset(self.num_envs, seeds, copies)]
        self._board[chosen], self._landing[chosen] = 0, self._first_cells()
        self._turn[chosen], self._standing[chosen] = 0, PLAYED
        self._note_who_acts()
        return self.observe()

    def step(self, actions: Actions) -> Step:
        """See `World.step`. Raises ValueError for actions of the wrong shape, or if the action of the player to move is
        outside of its space."""
        given = checked_actions(self.groups[0], actions[GROUP], self.num_envs)
        action, mover = given[self._copies, self._turn], self._turn
        played = self._standing == PLAYED
        if action.min() < 0 or action.max() >= self.NUM_ACTIONS:
            self._check_range(action[played])
            action = np.where(played, action, 0)
        cell = self._landing[self._copies, action]
        legal = played & (cell >= 0)
        moved = np.flatnonzero(legal)
        onto = cell[moved]
        self._board[moved, onto] = mover[moved] + 1
        self._landing[moved, action[moved]] = self._next_cells(onto)

        won = legal & self._lines_full(mover, cell)
        drawn = legal & ~won & (self._landing < 0).all(axis=1)
        illegal = played & ~legal
        ended = won | drawn | illegal
        self._turn = np.where(played & ~ended, 1 - mover, mover)
        rewards = np.zeros((self.num_envs, 2), np.float32)
        left = np.full((self.num_envs, 2), STAYS, np.int8)
        if ended.any():
            self._standing[won], self._standing[drawn], self._standing[illegal] = WON, DRAWN, ILLEGAL
            rewards[self._copies, mover] = won + ILLEGAL_REWARD * illegal
            rewards[self._copies, 1 - mover] -= won
            left[ended] = TERMINATED
        self._note_who_acts()
        return Step(self.observe(), {GROUP: rewards}, ended, np.zeros(self.num_envs, np.bool_), {GROUP: left})

    def _lines_full(self, mover: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Whether a line through a cell has only pieces of `mover`: players (B,) and cells (B,) -> (B,) bool."""
        mine = self._board == (mover + 1)[:, None]  # (B, cells)
        lines = self._lines_through.take(cell, axis=0, mode="wrap") + self._first_of_copy[:, None, None]
        return mine.take(lines).all(axis=1).any(axis=1)

    def _check_range(self, actions: np.ndarray) -> None:
        if actions.size and (actions.min() < 0 or actions.max() >= self.NUM_ACTIONS):
            rule = f"actions of {GROUP} must be in 0..{self.NUM_ACTIONS - 1}"
            raise ValueError(f"{rule}, got {actions.min()} to {actions.max()}")

    def _note_who_acts(self) -> None:
        self.acting = {GROUP: (self._standing == PLAYED)[:, None] & (self._turn[:, None] == (0, 1))}

    def observe(self) -> Observations:
        """Observations of the player to move, or of both players if the game is over; zeros for others."""
        assert self.acting is not None
        seen = self.acting[GROUP] | (self._standing > PLAYED)[:, None]  # (B, 2)
        views = self._views.take(self._board[:, None] + np.array(((0,), (3,)), np.int8))  # (B, 2, cells)
        views *= seen[..., None]
        board = views.view(np.int8).reshape(self.num_envs, 2, self.ROWS, self.COLUMNS, 2)
        mask = (self._landing >= 0)[:, None] & seen[..., None]  # (B, 2, actions)
        return {GROUP: {ACTION_MASK: mask.view(np.int8), OBSERVATION: board}}

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`; the names are explained at the class."""
        standing, turn = self._standing[copies], self._turn[copies]
        return {
            "first_player_wins": ((standing == WON) & (turn == 0)).astype(np.float64),
            "second_player_wins": ((standing == WON) & (turn == 1)).astype(np.float64),
            "draws": (standing == DRAWN).astype(np.float64),
            "illegal_moves": (standing == ILLEGAL).astype(np.float64),
        }

    def _winning_cells(self, copy: int) -> np.ndarray:
        """Cells of the winner's full lines in one copy; no cells if there is no winner."""
        if self._standing[copy] != WON:
            return np.empty(0, np.int64)
        mine = self._board[copy] == self._turn[copy] + 1
        return np.unique(self._lines[mine[self._lines].all(axis=1)])

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"board": self._board, "landing": self._landing, "turn": self._turn, "standing": self._standing}

    def set_state(self, state: WorldState) -> None:
        """See `ArrayWorld.set_state`."""
        super().set_state(state)
        self._note_who_acts()
