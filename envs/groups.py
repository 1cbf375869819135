"""Helpers for agent groups: sorts the agents of other libraries' worlds into groups, makes and checks their arrays."""

from collections.abc import Iterable

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import AgentGroup, Observations
from marl_tune.envs.trees import Arrays


def group_agents(agents: Iterable[tuple[str, str, gym.Space, gym.Space]]) -> list[tuple[AgentGroup, list[int]]]:
    """Puts agents with the same stem and the same spaces into one group. The stem is the name of the group.

    Args:
        agents: id, stem (the id without its number), observation space and action space of each.

    Returns:
        The groups, each with the indices of its agents in `agents`. A second group with the same stem and other spaces
        has the name stem-2.
    """
    groups: dict[str, tuple[tuple[str, gym.Space, gym.Space], list[str], list[int]]] = {}
    for place, (agent, *kind) in enumerate(agents):
        stem = kind[0]
        same = (name for name, (known, _, _) in groups.items() if known == tuple(kind))
        siblings = sum(known[0] == stem for known, _, _ in groups.values())
        name = next(same, f"{stem}-{siblings + 1}" if siblings else stem)
        _, ids, places = groups.setdefault(name, ((stem, *kind[1:]), [], []))
        ids.append(agent)
        places.append(place)
    return [(AgentGroup(name, tuple(ids), *kind[1:]), places) for name, (kind, ids, places) in groups.items()]


def zero_observations(groups: Iterable[AgentGroup], num_envs: int) -> Observations:
    """Group -> zeros (B, N, ...) of the space's type, or a dict of zeros if the space is a Dict."""
    return {group.name: _zeros(group.observation_space, (num_envs, len(group.agents))) for group in groups}


def _zeros(space: gym.Space, rows: tuple[int, int]) -> Arrays:
    if isinstance(space, gym.spaces.Dict):
        return {key: _zeros(part, rows) for key, part in space.items()}
    return np.zeros(rows + (space.shape or ()), space.dtype)


def checked_actions(group: AgentGroup, actions: np.ndarray, num_envs: int) -> np.ndarray:
    """The actions of a group as an array. Raises ValueError if its shape is not (B, N, ...)."""
    given = np.asarray(actions)
    shape = (num_envs, len(group.agents), *(group.action_space.shape or ()))
    if given.shape != shape:
        raise ValueError(f"actions of {group.name} must have the shape {shape}, got {given.shape}")
    return given


def checked_choices(group: AgentGroup, actions: np.ndarray, num_envs: int) -> np.ndarray:
    """As `checked_actions`, for a Discrete action space. Also raises ValueError for an action outside of the space."""
    given = checked_actions(group, actions, num_envs)
    last = int(group.action_space.n) - 1
    if given.min() < 0 or given.max() > last:
        raise ValueError(f"actions of {group.name} must be in 0..{last}, got {given.min()} to {given.max()}")
    return given
