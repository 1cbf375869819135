"""What a world is: B copies of one multi-agent simulation that step at once, with arrays per agent group.

A *copy* is one independent instance of the simulation. Agents with the same spaces and role form a *group*; every array
of a group has the shape `(B, N, ...)` for B copies and N agents. B is `num_envs` throughout.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeAlias

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import Actions, AgentGroup, Observations
from marl_tune.envs.curriculum import WorldConfig
from marl_tune.envs.joint_observation import joint_observation, joint_space
from marl_tune.envs.trees import Array

STAYS, TERMINATED, TRUNCATED = range(3)  # values of `Step.left`
WorldState: TypeAlias = dict[str, Any]  # what `World.get_state` returns: picklable, in a form of each world's own


class StateUnavailable(RuntimeError):
    """The state of a simulation cannot be saved, for example because a library in C holds it. The text says why."""


@dataclass
class Step:
    """Result of one `World.step`, which resets nothing: the observations are of the state that the actions led to."""

    observations: Observations
    # group -> (B, N, ...)
    rewards: dict[str, np.ndarray]
    # group -> (B, N) float32
    terminated: np.ndarray
    # (B,) bool: the task of this copy has ended
    truncated: np.ndarray
    # (B,) bool: this copy was cut off, e.g. by a time limit; never true where `terminated` is
    left: dict[str, np.ndarray] | None = None
    # group -> (B, N) int8: STAYS, or TERMINATED or TRUNCATED for an agent whose own episode ended with this step, which
    # is every one that is left when the copy is done; None in a world where all agents act in all steps


class World(ABC):
    """B copies of a multi-agent simulation, stepped at once.

    Copy i depends on its own seed and its own actions only: neither on B nor on what the other copies do. All its
    randomness comes from its own `np.random.Generator`. Arrays that a method returns are the caller's to keep. Call
    `reset` before the first `step`.

    Args:
        config: an instance of `Config`.
        num_envs: B.
    """

    Config: ClassVar[type[WorldConfig]]
    # dataclass of the world's settings; its first field, `name`, is the world's stem
    groups: tuple[AgentGroup, ...]
    num_envs: int
    acting: dict[str, np.ndarray] | None = None
    # group -> (B, N) bool: who acts in the next step, in a world where agents take turns, die or join; it is another
    # array after each step and reset. None: all agents of a copy act in all its steps, and end with it
    own_state_space: gym.spaces.Box | None = None
    # space of a copy's `own_state`, in a world that gives one
    least_acting: int = 0
    # where `acting` is not None: agents of a copy that are sure to act in each of its steps

    @abstractmethod
    def __init__(self, config: WorldConfig, num_envs: int = 1): ...

    @abstractmethod
    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """Starts a new episode in some copies.

        Args:
            seeds: one per reset copy; an int reseeds that copy's generator, None goes on with it. None for the whole
                argument: all go on.
            copies: indices of the copies to reset, None for all.

        Returns:
            The observations of all B copies, `(B, N, ...)` per group; those of the copies that were not reset are
            unchanged.
        """

    @abstractmethod
    def step(self, actions: Actions) -> Step:
        """Advances every copy by one step.

        Args:
            actions: group -> `(B, N)` int64 for Discrete action spaces, `(B, N, ...)` otherwise; those of agents that
                are not `acting` are ignored. A copy that is done must be reset before its next step; what a step does
                to it before that is undefined.

        Returns:
            The results. Where agents take turns, the observation of an agent counts when it acts next and when its
            episode has ended with this step; its reward is for all it has done so far and has not been paid for.
        """

    @abstractmethod
    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics of the present episode so far; read when it is done. Name -> `(len(copies),)` float."""

    @abstractmethod
    def render(self, copy: int = 0) -> np.ndarray:
        """An RGB picture of one copy, `(height, width, 3)` uint8."""

    @abstractmethod
    def get_state(self) -> WorldState:
        """Everything that the future depends on, generators included: picklable, and detached from the world.

        Raises:
            StateUnavailable: if the simulation cannot give it; the world goes on all the same. Whoever wanted to go on
                from here later begins new episodes instead.
        """

    @abstractmethod
    def set_state(self, state: WorldState) -> None:
        """Goes back to a state that `get_state` of a world with the same configuration and B returned."""

    @property
    def state_space(self) -> gym.spaces.Box:
        """Space of one copy's `state`."""
        return joint_space(self.groups) if self.own_state_space is None else self.own_state_space

    def state(self, observations: Observations) -> Array:
        """What a critic may know that sees all of a copy, (B, ...): `own_state` in a world that gives one, else the
        joint observation. It is of the present state; there is none before a copy's first reset.

        Args:
            observations: what the last `step` or `reset` returned.
        """
        return joint_observation(self.groups, observations) if self.own_state_space is None else self.own_state()

    def own_state(self) -> np.ndarray:
        """The state of each copy, (B, ...) in `own_state_space`, in a world that knows more than its agents see, or
        says it in fewer numbers. The number of the step is not in it: truncation is no end."""
        raise NotImplementedError(f"{type(self).__name__} has an own_state_space and no own_state")

    def mean_acting(self) -> float | None:
        """Agents of one copy that act in a step, on average; None where the first step of an episode shows it. The
        world may be reset to see who does."""
        return None

    def close(self) -> None:  # noqa: B027  most worlds hold nothing but memory
        """Releases what the world holds; it cannot be used afterwards. May be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def agents_per_step(world: World) -> float:
    """Agents of one copy that act in a step: on average where the world knows that, else at the start of an episode;
    the world is reset to see who does."""
    if world.acting is None:
        return sum(len(group.agents) for group in world.groups)
    mean = world.mean_acting()
    if mean is not None:
        return mean
    world.reset([0] * world.num_envs)
    return int(sum(acting[0].sum() for acting in world.acting.values()))


def resolve_reset(
    num_envs: int, seeds: Sequence[int | None] | None, copies: np.ndarray | None
) -> list[tuple[int, int | None]]:
    """The arguments of `World.reset` as pairs (copy, seed).

    Raises:
        ValueError: if there is not exactly one seed per reset copy.
    """
    chosen = range(num_envs) if copies is None else [int(copy) for copy in copies]
    if seeds is None:
        return [(copy, None) for copy in chosen]
    if len(seeds) != len(chosen):
        raise ValueError(f"reset needs one seed per copy: {len(chosen)} copies, got {len(seeds)} seeds")
    return list(zip(chosen, seeds, strict=True))
