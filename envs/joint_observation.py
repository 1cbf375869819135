"""What all agents of a copy see together, as one vector: the state of a world that gives no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from envs.trees import Array

if TYPE_CHECKING:  # envs.world is built on this file
    from envs.world import AgentGroup, Observations

MASK = "action_mask"  # key of a Dict observation that says what an agent may do, not what it sees


def joint_space(groups: Sequence[AgentGroup]) -> gym.spaces.Box:
    """Space of `joint_observation`: bytes where all parts are bytes, else float32."""
    parts = [(space, len(group.agents)) for group in groups for _, space in _parts(group.observation_space)]
    dtype = np.uint8 if all(space.dtype == np.uint8 for space, _ in parts) else np.float32
    low, high = (
        np.concatenate([np.tile(_bound(space, side).ravel(), count) for space, count in parts]).astype(dtype)
        for side in ("low", "high")
    )
    return gym.spaces.Box(low, high, dtype=dtype)


def joint_observation(groups: Sequence[AgentGroup], observations: Observations) -> Array:
    """The agents' observations, flattened and joined in the order of the groups, (B, entries) in memory of its own.

    Of a Dict all keys but `action_mask` count, in their order, each for all agents of the group. Numbers stay as they
    are: pixels from 0 to 255 too.
    """
    parts = [
        part.reshape(part.shape[0], -1)
        for group in groups
        for part in _leaves(group.observation_space, observations[group.name])
    ]
    width = sum(part.shape[1] for part in parts)
    if isinstance(parts[0], np.ndarray):
        dtype = np.uint8 if all(part.dtype == np.uint8 for part in parts) else np.float32
        joint = np.empty((len(parts[0]), width), dtype)
    else:
        joint = parts[0].new_empty((len(parts[0]), width))  # torch's, on a GPU; nothing in envs/ needs torch
    start = 0
    for part in parts:
        joint[:, start : start + part.shape[1]] = part
        start += part.shape[1]
    return joint


def _parts(space: gym.Space) -> Iterator[tuple[str, gym.Space]]:
    """(key, space) of what an agent sees; one with an empty key where it is no Dict."""
    if not isinstance(space, gym.spaces.Dict):
        yield "", space
        return
    for key, part in space.items():
        if key != MASK:
            yield key, part


def _leaves(space: gym.Space, seen: Any) -> Iterator[Array]:
    for key, _ in _parts(space):
        yield seen[key] if key else seen


def _bound(space: gym.Space, side: str) -> np.ndarray:
    """The lowest or highest entries of a Box; of a MultiBinary, 0 or 1."""
    if isinstance(space, gym.spaces.Box):
        return space.low if side == "low" else space.high
    return np.full(space.shape or (), 0 if side == "low" else 1)
