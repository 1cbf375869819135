"""A world with managers: every k steps they set goals, which the agents of the wrapped world observe."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import Actions, AgentGroup, Observations
from marl_tune.envs.groups import checked_actions
from marl_tune.envs.trees import on_host, tree_map
from marl_tune.envs.world import STAYS, TERMINATED, TRUNCATED, Step, World, WorldState, agents_per_step

MANAGER = "manager"  # id and group of the team's manager; `manager_of_<agent>` and `managers_of_<group>` of the others
FEATURES = "observation"  # the part of a Dict observation that a goal is added to


@dataclass(frozen=True)
class Goals:
    """The goals that a manager can set: one of n, or a vector in [-1, 1]^d. Exactly one of `n` and `dim` is set."""

    n: int | None
    dim: int | None

    @property
    def width(self) -> int:
        """Number of entries of a goal in an observation: a one-hot code, or the vector. They are 0 before the first
        goal."""
        return self.dim if self.n is None else self.n  # type: ignore[return-value]

    @property
    def low(self) -> float:
        """The least value of an entry; the greatest is 1."""
        return -1.0 if self.n is None else 0.0

    def space(self, agents: int | None = None) -> gym.Space:
        """Action space of a manager that sets the goal of one agent (None), or of several agents at once."""
        count = 1 if agents is None else agents
        if self.n is None:
            return gym.spaces.Box(-1.0, 1.0, (count * self.width,), np.float32)
        return gym.spaces.Discrete(self.n) if agents is None else gym.spaces.MultiDiscrete([self.n] * count)

    def encode(self, actions: np.ndarray) -> np.ndarray:
        """Goals as agents observe them: discrete goals (...) or vectors (..., d) -> (..., width) float32.

        Raises:
            ValueError: for a goal that is not in 0..n-1. A vector is clipped to the bounds.
        """
        if self.n is None:
            return np.clip(actions, -1.0, 1.0).astype(np.float32)
        if actions.size and not 0 <= actions.min() <= actions.max() < self.n:
            raise ValueError(f"goals must be in 0..{self.n - 1}, got {actions.min()} to {actions.max()}")
        return np.eye(self.n, dtype=np.float32)[actions]


class Hierarchy(World):
    """A world whose agents, the workers, get goals from managers, as in feudal learning (Dayan and Hinton 1993,
    https://papers.nips.cc/paper/714-feudal-reinforcement-learning; Vezhnevets et al. 2017,
    https://arxiv.org/abs/1703.01161).

    Description:
        In a worker's steps 0, k, 2k, ... of an episode its manager acts *together with it*: both observe the same
        state. A goal that is set in step t is valid, and part of the worker's observation, in the steps t + 1 to t + k.
        In step 0 there is no goal. So no copy has to wait while its manager acts: all copies step in one call. Steps,
        lengths of episodes and the meaning of a worker's discount factor are those of the wrapped world. A manager's
        step is one decision, k steps of its worker. In the papers a worker acts on a new goal in the same step; here it
        does so one step later.

    Actions:
        | agent | actions |
        |---|---|
        | worker | those of the wrapped world |
        | manager of an agent | Discrete(n), or a Box of d numbers in [-1, 1] |
        | manager of the team | a goal for each worker, group by group: MultiDiscrete([n] * N), or a Box of N d numbers
        |

    Observations:
        A worker observes what the wrapped world shows, followed by its present goal: n entries of a one-hot code (all 0
        in step 0), or the d entries of a vector. To a picture (height, width, channels) the goal is added as n or d
        constant channels. In a Dict it is added to the part `observation`. The manager of an agent observes what its
        agent observes, without the action mask. The manager of the team observes what all workers observe, one after
        the other.

    Rewards:
        A worker gets the reward of the wrapped world, and its manager gets the same. The manager of the team gets the
        mean over all workers, in each step. So the reward of a manager's decision is an undiscounted sum over k steps.
        Rewards of managers are not part of reported returns (`AgentGroup.counted`).

    Start, End:
        Those of the wrapped world. A manager ends with its agent, the manager of the team with the copy. If agents take
        turns, die or join, k counts the agent's own steps, and the team cannot have a manager, because no step has the
        observations of all agents.

    Metrics:
        Those of the wrapped world.

    Arguments:
        world: the wrapped world. `close` closes it, too.
        interval: k, at least 1.
        goals: the goals that managers can set.
        of_team: true: one manager for all agents; false: one for each agent.

    Raises:
        ValueError: if a goal cannot be added to an observation, two ids are equal, or the manager of the team would not
        see
            all workers.
    """

    def __init__(self, world: World, interval: int, goals: Goals, of_team: bool):
        self.world, self.interval, self.goals, self.of_team = world, interval, goals, of_team
        self.num_envs = world.num_envs
        self._workers = tuple(_worker_group(group, goals) for group in world.groups)
        self._managers = (_team_manager(world, self._workers, goals),) if of_team else _managers(self._workers, goals)
        self.groups = self._workers + self._managers
        _check_ids(self.groups)
        self._columns, workers = {}, 0  # group -> the places of its workers among all of a copy
        for group in self._workers:
            self._columns[group.name] = slice(workers, workers + len(group.agents))
            workers += len(group.agents)
        self._in_force = np.zeros((self.num_envs, workers, goals.width), np.float32)  # (B, workers, width)
        self._acted = np.zeros((self.num_envs, workers), np.int64)  # (B, workers) steps in the episode
        self._going_on = np.ones((self.num_envs, 1), np.bool_)  # (B, 1) copies that are not done
        self.least_acting = workers if world.acting is None else 0
        self._note_who_acts()

    def _note_who_acts(self) -> None:
        acts = self._going_on
        if self.world.acting is not None:
            acts = np.concatenate([self.world.acting[group.name] for group in self._workers], axis=1)
        acts = np.broadcast_to(acts, self._acted.shape)
        self.acting = self._by_group(acts, acts & (self._acted % self.interval == 0))

    def _by_group(self, of_workers: np.ndarray, of_managers: np.ndarray) -> dict[str, np.ndarray]:
        """Splits columns by group: values of workers and of managers, (B, workers) each -> group -> (B, N). The manager
        of the team has the first column."""
        split = {name: of_workers[:, columns].copy() for name, columns in self._columns.items()}
        for group, columns in zip(self._managers, self._columns.values(), strict=False):
            split[group.name] = of_managers[:, :1].copy() if self.of_team else of_managers[:, columns].copy()
        return split

    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """See `World.reset`. The copies that are reset have no goals."""
        seen = self.world.reset(seeds, copies)
        chosen = slice(None) if copies is None else copies
        self._in_force[chosen], self._acted[chosen], self._going_on[chosen] = 0.0, 0, True
        self._note_who_acts()
        return self._observations(seen)

    def step(self, actions: Actions) -> Step:
        """See `World.step`. Raises ValueError for goals of the wrong shape or outside their space."""
        assert self.acting is not None
        self._set_goals(actions, self.acting)
        self._acted += self._of_all(self.acting)
        step = self.world.step({group.name: actions[group.name] for group in self._workers})
        self._going_on = ~(step.terminated | step.truncated)[:, None]
        self._note_who_acts()
        rewards = self._of_all(step.rewards)
        if step.left is None:
            how = np.where(step.terminated, TERMINATED, np.where(step.truncated, TRUNCATED, STAYS)).astype(np.int8)
            left = np.broadcast_to(how[:, None], rewards.shape)
        else:
            left = self._of_all(step.left)
        earned = rewards.mean(axis=1, keepdims=True) if self.of_team else rewards
        return Step(
            observations=self._observations(step.observations),
            rewards=self._by_group(rewards, earned),
            terminated=step.terminated,
            truncated=step.truncated,
            left=self._by_group(left, left),
        )

    def _of_all(self, by_group: dict[str, np.ndarray]) -> np.ndarray:
        """Group -> (B, N) -> (B, workers)."""
        return np.concatenate([by_group[group.name] for group in self._workers], axis=1)

    def _set_goals(self, actions: Actions, acting: dict[str, np.ndarray]) -> None:
        """Sets the goals of the managers that act."""
        for group, columns in zip(self._managers, self._columns.values(), strict=False):
            acts = acting[group.name]
            goals = self.goals.encode(checked_actions(group, actions[group.name], self.num_envs)[acts])
            if self.of_team:
                self._in_force[acts[:, 0]] = goals.reshape(len(goals), *self._in_force.shape[1:])
            else:
                self._in_force[:, columns][acts] = goals

    def _observations(self, seen: Observations) -> Observations:
        """The observations of the wrapped world with the present goals, and the observations of managers."""
        observations: Observations = {}
        for group in self._workers:
            observed = tree_map(on_host, seen[group.name])
            features, goals = _features_of(observed), self._in_force[:, self._columns[group.name]]
            wide = (*features.shape[:-1], goals.shape[-1])
            planes = np.broadcast_to(goals.reshape(*goals.shape[:2], *[1] * (len(wide) - 3), -1), wide)
            planes = (planes * _level(features.dtype)).astype(features.dtype)
            joined = np.concatenate([features, planes], axis=-1)
            observations[group.name] = {**observed, FEATURES: joined} if isinstance(observed, dict) else joined
        parts = [_features_of(observations[group.name]) for group in self._workers]
        if self.of_team:
            parts = [np.concatenate([part.reshape(self.num_envs, 1, -1) for part in parts], axis=-1)]
        return observations | {group.name: part.copy() for group, part in zip(self._managers, parts, strict=True)}

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`."""
        return self.world.episode_metrics(copies)

    def render(self, copy: int = 0) -> np.ndarray:
        """See `World.render`: the wrapped world's picture."""
        return self.world.render(copy)

    def mean_acting(self) -> float:
        """See `World.mean_acting`: the workers that act, and in every k-th step their managers."""
        workers = agents_per_step(self.world)
        return workers + (1 if self.of_team else workers) / self.interval

    def get_state(self) -> WorldState:
        """See `World.get_state`."""
        return {
            "world": self.world.get_state(),
            "in_force": self._in_force.copy(),
            "acted": self._acted.copy(),
            "going_on": self._going_on.copy(),
        }

    def set_state(self, state: WorldState) -> None:
        """See `World.set_state`. Raises ValueError for the state of a world with other goals."""
        self._in_force[...], self._acted[...] = state["in_force"], state["acted"]
        self._going_on = state["going_on"].copy()
        self.world.set_state(state["world"])
        self._note_who_acts()

    def close(self) -> None:
        """See `World.close`."""
        self.world.close()


def _worker_group(group: AgentGroup, goals: Goals) -> AgentGroup:
    """The group with a goal in its observations."""
    space, box = group.observation_space, _features_of(group.observation_space)
    if not isinstance(box, gym.spaces.Box) or len(box.shape) not in (1, 3):
        rule = f"a vector, or a picture with channels, or a Dict of one of them as {FEATURES!r} with an action mask"
        raise ValueError(f"a goal needs observations that are {rule}; {group.name} sees {space}")
    if goals.n is None and not np.issubdtype(box.dtype, np.floating):
        rule = "goal_dim must be null, and goals set, where observations are whole numbers"
        raise ValueError(f"{rule}, got {goals.dim}; {group.name} sees {space}")
    level, shape = _level(box.dtype), (*box.shape[:-1], goals.width)
    low, high = (np.full(shape, bound, box.dtype) for bound in (goals.low * level, level))
    wide = gym.spaces.Box(
        np.concatenate([box.low, low], axis=-1), np.concatenate([box.high, high], axis=-1), dtype=box.dtype.type
    )
    if isinstance(space, gym.spaces.Dict):
        return replace(group, observation_space=gym.spaces.Dict({**space.spaces, FEATURES: wide}))
    return replace(group, observation_space=wide)


def _managers(workers: Sequence[AgentGroup], goals: Goals) -> tuple[AgentGroup, ...]:
    """For each group of workers a group of managers, which observe what the workers observe."""
    return tuple(
        replace(
            group,
            name=f"{MANAGER}s_of_{group.name}",
            agents=tuple(f"{MANAGER}_of_{agent}" for agent in group.agents),
            observation_space=_features_of(group.observation_space),
            action_space=goals.space(),
            counted=False,
        )
        for group in workers
    )


def _team_manager(world: World, workers: Sequence[AgentGroup], goals: Goals) -> AgentGroup:
    """The group of the one manager of all workers."""
    if world.acting is not None:
        raise ValueError(
            "manager must be agent in a world whose agents take turns, die or join, got 'team': nobody there sees what "
            "all agents see"
        )
    low, high = [], []
    for group in workers:
        box = _features_of(group.observation_space)
        if len(box.shape) != 1:
            raise ValueError(f"manager must be agent where agents see pictures, got 'team'; {group.name} sees {box}")
        low += [box.low] * len(group.agents)
        high += [box.high] * len(group.agents)
    space = gym.spaces.Box(np.concatenate(low), np.concatenate(high), dtype=np.result_type(*low).type)
    agents = sum(len(group.agents) for group in workers)
    return AgentGroup(MANAGER, (MANAGER,), space, goals.space(agents), counted=False)


def _check_ids(groups: Sequence[AgentGroup]) -> None:
    for ids in ([group.name for group in groups], [agent for group in groups for agent in group.agents]):
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"a world with managers cannot have a {twice[0]!r} of its own")


def _features_of(observed: Any) -> Any:
    """The part of a space or of an observation to which a goal is added; None if a Dict has no such part."""
    return observed.get(FEATURES) if isinstance(observed, dict | gym.spaces.Dict) else observed


def _level(dtype: np.typing.DTypeLike) -> int:
    """The number that stands for a goal's 1: 255 in a picture of bytes, which the modules divide by 255."""
    return 255 if dtype == np.uint8 else 1
