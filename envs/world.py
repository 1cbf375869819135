"""The interface of a world: B copies of one multi-agent simulation that step at once, with arrays per agent group.

A *copy* is one independent instance of the simulation. Agents with the same spaces and the same role form a *group*.
Every array of a group has the shape `(B, N, ...)` for B copies and N agents. In code, B is `num_envs`.

To use a world in another framework, wrap it as a PettingZoo `ParallelEnv`: see `marl_tune.envs.parallel_env`.
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
    """The result of one `World.step`. The observations are of the state after the step; no copy has been reset."""

    observations: Observations
    # group -> (B, N, ...)
    rewards: dict[str, np.ndarray]
    # group -> (B, N) float32
    terminated: np.ndarray
    # (B,) bool: the episode of this copy has ended by the rules of the task
    truncated: np.ndarray
    # (B,) bool: the episode of this copy was cut off, for example by a time limit; never true where `terminated` is
    left: dict[str, np.ndarray] | None = None
    # group -> (B, N) int8: TERMINATED or TRUNCATED for an agent whose own episode ended with this step, else STAYS.
    # When a copy is done, the episodes of all its remaining agents have ended. None: all agents act in all steps


class World(ABC):
    """B copies of a multi-agent simulation, stepped at once.

    A copy depends only on its own seed and its own actions, neither on B nor on other copies. All its randomness comes
    from its own `np.random.Generator`. A method never changes arrays that it returned before. Call `reset` before the
    first `step`.

    Args:
        config: an instance of `Config`.
        num_envs: B.
    """

    Config: ClassVar[type[WorldConfig]]
    # dataclass of the world's settings; its first field, `name`, is the name of the world in the registry
    groups: tuple[AgentGroup, ...]
    num_envs: int
    acting: dict[str, np.ndarray] | None = None
    # group -> (B, N) bool: which agents act in the next step, in a world where agents take turns, die or join. Each
    # step and each reset makes new arrays. None: all agents of a copy act in all its steps, and end with it
    own_state_space: gym.spaces.Box | None = None
    # space of a copy's `own_state`; None: the world has no state of its own
    least_acting: int = 0
    # if `acting` is not None: number of agents of a copy that certainly act in each of its steps

    @abstractmethod
    def __init__(self, config: WorldConfig, num_envs: int = 1): ...

    @abstractmethod
    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """Starts a new episode in some copies.

        Args:
            seeds: one for each copy that is reset. An int reseeds the copy's generator; with None the copy goes on with
                its generator. None instead of a sequence: all copies go on with their generators.
            copies: indices of the copies to reset, None for all.

        Returns:
            The observations of all B copies, `(B, N, ...)` per group. Those of copies that were not reset are
            unchanged.
        """

    @abstractmethod
    def step(self, actions: Actions) -> Step:
        """Advances every copy by one step.

        Args:
            actions: group -> `(B, N)` int64 for Discrete action spaces, `(B, N, ...)` otherwise. Actions of agents that
                are not `acting` are ignored. A copy that is done must be reset before its next step; without a reset
                the result of a step is undefined.

        Returns:
            The results. In a world where agents take turns, the observation of an agent is valid if the agent acts
            next, or if its episode has ended with this step. Its reward is the sum since its last reward.
        """

    @abstractmethod
    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics of the present episode so far, name -> `(len(copies),)` float. Read them when the episode is done."""

    @abstractmethod
    def render(self, copy: int = 0) -> np.ndarray:
        """An RGB picture of one copy, `(height, width, 3)` uint8."""

    @abstractmethod
    def get_state(self) -> WorldState:
        """The complete state of the simulation and of its generators, picklable. Later steps do not change it.

        Raises:
            StateUnavailable: if the simulation cannot be saved. The world can be used further. A resumed training then
                begins new episodes.
        """

    @abstractmethod
    def set_state(self, state: WorldState) -> None:
        """Restores a state that `get_state` returned, of this world or of one with the same configuration and B."""

    @property
    def state_space(self) -> gym.spaces.Box:
        """Space of one copy's `state`."""
        return joint_space(self.groups) if self.own_state_space is None else self.own_state_space

    def state(self, observations: Observations) -> Array:
        """The present state of each copy for a central critic, (B, ...): `own_state` if the world has one, else the
        joint observation. Not valid before a copy's first reset.

        Args:
            observations: those that the last `step` or `reset` returned.
        """
        return joint_observation(self.groups, observations) if self.own_state_space is None else self.own_state()

    def own_state(self) -> np.ndarray:
        """The state of each copy, (B, ...) in `own_state_space`.

        A world defines it if the state holds more than all observations together, or fewer numbers. The number of the
        step is not part of it, because truncation does not belong to the task.
        """
        raise NotImplementedError(f"{type(self).__name__} has an own_state_space and no own_state")

    def mean_acting(self) -> float | None:
        """Mean number of agents of one copy that act in a step; may reset the world. None: as many as in the first step
        of an episode."""
        return None

    def close(self) -> None:  # noqa: B027  most worlds hold nothing but memory
        """Releases all resources. The world cannot be used afterwards. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def agents_per_step(world: World) -> float:
    """Number of agents of one copy that act in a step: the mean if the world knows it, else the number at the start of
    an episode, for which the world is reset."""
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
