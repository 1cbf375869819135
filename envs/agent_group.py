"""A group of agents with the same spaces and the same role, and the forms of what its agents see and do."""

from dataclasses import dataclass
from typing import TypeAlias

import gymnasium as gym
import numpy as np

from marl_tune.envs.trees import Arrays

Observations: TypeAlias = dict[str, Arrays]
# group -> (B, N, ...) array, or a dict of such arrays where the observation space is a Dict. They are torch tensors in
# a world that simulates on a GPU: so they need not leave it
Actions: TypeAlias = dict[str, np.ndarray]
# group -> (B, N) int64 for Discrete action spaces, (B, N, ...) otherwise


@dataclass(frozen=True)
class DirectionTokens:
    """Which entries of a 1-D observation hold one number per direction, for example the pheromone of each neighbour."""

    indices: tuple[int, ...]
    # places in the observation, one per direction
    directions: tuple[tuple[float, ...], ...]
    # unit vector of each direction, in the order of `indices`


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
    # the entries of the observation that belong to directions; None: there are none
    positions: tuple[int, ...] | None = None
    # the entries of a 1-D observation that are the agent's own position, one per axis, in the observation's own unit
    counted: bool = True
    # whether its rewards are part of the returns that are reported; false for agents that a wrapper adds to a world
