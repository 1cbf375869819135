"""The observations of all agents of a copy as one array: the state of a world that has no state of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from marl_tune.envs.trees import Array, Arrays, put

if TYPE_CHECKING:  # marl_tune.envs.world is built on this file
    from marl_tune.envs.agent_group import AgentGroup, Observations

MASK = "action_mask"  # key of a Dict observation that is not part of the state: which actions are allowed


def joint_space(groups: Sequence[AgentGroup]) -> gym.spaces.Box:
    """Space of `joint_observation`: uint8 if all parts are uint8, else float32."""
    low, high = (
        joint_observation(groups, {group.name: _bounds(group, side) for group in groups})[0] for side in ("low", "high")
    )
    assert isinstance(low, np.ndarray)
    return gym.spaces.Box(low, high, dtype=low.dtype.type)


def joint_observation(groups: Sequence[AgentGroup], observations: Observations) -> Array:
    """Joins the observations of all agents in the order of the groups, in a new array.

    If all observations are images of one height and width, the result is one image with all their channels, (B, height,
    width, channels). Otherwise they are flattened: (B, entries). All keys of a Dict but `action_mask` are joined, in
    their order, each for all agents of the group. Numbers are not scaled: pixels are 0 to 255.
    """
    join = _channels if _are_images(groups) else _entries
    parts = [join(part) for group in groups for part in _leaves(group.observation_space, observations[group.name])]
    shape = (*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))
    if isinstance(parts[0], np.ndarray):
        joint: Array = np.empty(shape, np.uint8 if all(part.dtype == np.uint8 for part in parts) else np.float32)
    else:
        joint = parts[0].new_empty(shape)  # torch's, on a GPU; nothing in envs/ needs torch
    start = 0
    for part in parts:
        put(joint, (..., slice(start, start + part.shape[-1])), part)
        start += part.shape[-1]
    return joint


def _entries(part: Array) -> Array:
    """(B, N, ...) -> (B, entries)"""
    return part.reshape(part.shape[0], -1)


def _channels(part: Array) -> Array:
    """(B, N, height, width, channels) -> (B, height, width, N x channels)"""
    return part.swapaxes(1, 2).swapaxes(2, 3).reshape(part.shape[0], *part.shape[2:4], -1)


def _are_images(groups: Sequence[AgentGroup]) -> bool:
    """Whether all observations are images of one height and width."""
    shapes = [space.shape or () for group in groups for _, space in _parts(group.observation_space)]
    return all(len(shape) == 3 for shape in shapes) and len({shape[:2] for shape in shapes}) == 1


def _parts(space: gym.Space) -> Iterator[tuple[str, gym.Space]]:
    """(key, space) of the parts of an observation. If it is no Dict, there is one part with an empty key."""
    if not isinstance(space, gym.spaces.Dict):
        yield "", space
        return
    for key, part in space.items():
        if key != MASK:
            yield key, part


def _leaves(space: gym.Space, seen: Arrays) -> Iterator[Array]:
    """The arrays of a group's observation that belong to the `_parts` of its space."""
    for key, _ in _parts(space):
        leaf = seen[key] if isinstance(seen, dict) else seen
        assert not isinstance(leaf, dict)
        yield leaf


def _bounds(group: AgentGroup, side: str) -> Arrays:
    """The lowest or highest observations of a group, in the form of an observation of one copy."""
    parts: dict[str, Arrays] = {
        key: np.broadcast_to(_bound(space, side), (1, len(group.agents), *(space.shape or ())))
        for key, space in _parts(group.observation_space)
    }
    return parts.get("", parts)


def _bound(space: gym.Space, side: str) -> np.ndarray:
    """The lowest or highest entries of a Box; 0 or 1 of a MultiBinary."""
    if isinstance(space, gym.spaces.Box):
        return space.low if side == "low" else space.high
    return np.full(space.shape or (), 0 if side == "low" else 1)
