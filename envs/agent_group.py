"""A group of agents that have the same spaces and role, and what they see."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym

Observations = dict[str, Any]
# group -> (B, N, ...) array, or a dict of such arrays where the observation space is a Dict; torch tensors in a world
# that simulates on a GPU, so that they need not leave it


@dataclass(frozen=True)
class DirectionTokens:
    """Which entries of a 1-D observation hold one scalar per direction, e.g. pheromone in each neighbour cell."""

    indices: tuple[int, ...]
    # positions in the observation, one per direction
    directions: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class AgentGroup:
    """Agents that share their spaces and their role."""

    name: str
    # key of the group in every dict of arrays
    agents: tuple[str, ...]
    # agent ids, unique in the whole world, in the order of the N axis
    observation_space: gym.Space
    # space of one agent's observation
    action_space: gym.Space
    # space of one agent's action
    tokens: DirectionTokens | None = None
    # the per-direction entries of the observation, if it has any
    positions: tuple[int, ...] | None = None
    # the entries of a 1-D observation that are the agent's own position, one per axis, in the observation's own unit
    counted: bool = True
