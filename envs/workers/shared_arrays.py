"""Actions and results of the copies of a world, as arrays in memory that several processes share.

The memory is a file without a name, which each process maps. It disappears when the processes end, for whatever reason.
The place of each array follows from the world's groups and B, so only the file is handed over.
"""

import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import AgentGroup, Observations
from marl_tune.envs.trees import tree_map
from marl_tune.envs.world import Step

CACHE_LINE = 64  # bytes; two arrays never share one

Place: TypeAlias = Callable[[mmap.mmap], np.ndarray]  # the memory -> an array in it
Places: TypeAlias = Place | dict[str, "Places"]


@dataclass
class SharedArrays:
    """The arrays of some copies. Results are as in `Step`, and `acting` is as in `World`.

    `left` and `acting` are used only in worlds where agents take turns, die or join.
    """

    actions: dict[str, np.ndarray]
    observations: Observations
    rewards: dict[str, np.ndarray]
    terminated: np.ndarray
    truncated: np.ndarray
    left: dict[str, np.ndarray]
    acting: dict[str, np.ndarray]

    def of(self, copies: slice) -> "SharedArrays":
        """The part of the same memory that belongs to some of the copies."""
        parts = {field.name: tree_map(lambda array: array[copies], getattr(self, field.name)) for field in fields(self)}
        return SharedArrays(**parts)

    def write(self, step: Step, acting: dict[str, np.ndarray] | None) -> None:
        """Writes the results of a step."""
        self.write_observations(step.observations, acting)
        tree_map(np.copyto, self.rewards, step.rewards)
        self.terminated[:], self.truncated[:] = step.terminated, step.truncated
        if step.left is not None:
            tree_map(np.copyto, self.left, step.left)

    def write_observations(self, observations: Observations, acting: dict[str, np.ndarray] | None) -> None:
        """Writes observations, and which agents act next."""
        tree_map(np.copyto, self.observations, observations)
        self.write_acting(acting)

    def write_acting(self, acting: dict[str, np.ndarray] | None) -> None:
        """Writes which agents act next; None: all of them, always."""
        if acting is not None:
            tree_map(np.copyto, self.acting, acting)

    def read(self, takes_turns: bool) -> Step:
        """A copy of the present results."""
        rewards = tree_map(np.copy, self.rewards)
        left = tree_map(np.copy, self.left) if takes_turns else None
        return Step(self.read_observations(), rewards, self.terminated.copy(), self.truncated.copy(), left)

    def read_observations(self) -> Observations:
        """A copy of the present observations."""
        return tree_map(np.copy, self.observations)

    def read_acting(self) -> dict[str, np.ndarray]:
        """A copy of `acting`: which agents act next."""
        return tree_map(np.copy, self.acting)


def make_file(groups: Sequence[AgentGroup], num_envs: int) -> int:
    """Makes memory for the arrays of B copies. Returns the descriptor of a file without a name."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("world")
    else:  # not Linux
        with tempfile.TemporaryFile() as unnamed:
            file = os.dup(unnamed.fileno())
    os.truncate(file, _layout(groups, num_envs)[1])
    return file


def map_file(file: int, groups: Sequence[AgentGroup], num_envs: int) -> SharedArrays:
    """The arrays in the file. Closes the file; the memory lasts as long as one of its arrays."""
    layout, size = _layout(groups, num_envs)
    memory = mmap.mmap(file, size)
    os.close(file)
    return SharedArrays(**tree_map(lambda place: place(memory), layout))


def _layout(groups: Sequence[AgentGroup], num_envs: int) -> tuple[dict[str, Places], int]:
    """Where each array is in the memory.

    Returns:
        In the form of `SharedArrays`, a function from the memory to the array; and the size of the memory in bytes.
    """
    size = 0

    def place(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> Place:
        nonlocal size
        offset, size = size, size + int(np.prod(shape)) * np.dtype(dtype).itemsize
        size += -size % CACHE_LINE
        return lambda memory: np.ndarray(shape, dtype, memory, offset)

    def observed(space: gym.Space, rows: tuple[int, int]) -> Places:
        if isinstance(space, gym.spaces.Dict):
            return {key: observed(part, rows) for key, part in space.items()}
        return place(rows + (space.shape or ()), space.dtype)

    rows = {group.name: (num_envs, len(group.agents)) for group in groups}
    spaces = {group.name: group.action_space for group in groups}
    layout: dict[str, Places] = {
        "actions": {name: place(rows[name] + (space.shape or ()), space.dtype) for name, space in spaces.items()},
        "observations": {group.name: observed(group.observation_space, rows[group.name]) for group in groups},
        "rewards": {name: place(shape, np.float32) for name, shape in rows.items()},
        "terminated": place((num_envs,), np.bool_),
        "truncated": place((num_envs,), np.bool_),
        "left": {name: place(shape, np.int8) for name, shape in rows.items()},
        "acting": {name: place(shape, np.bool_) for name, shape in rows.items()},
    }
    return layout, size
