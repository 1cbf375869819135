"""A world as a PettingZoo `ParallelEnv`, for use outside this framework: `WorldParallelEnv` wraps one copy of any
world.

    from marl_tune import envs
    from marl_tune.envs.parallel_env import WorldParallelEnv

    env = WorldParallelEnv(envs.make_world(envs.default_config("signal", n_agents=4)), name="signal")
    observations, infos = env.reset(seed=0)

Each world that is written here passes PettingZoo's own tests behind this wrapper (`parallel_api_test`,
`parallel_seed_test`): `tests/envs/test_parallel_env.py` runs them. The exceptions are the two board games, in which one
player acts at a time, so that a user would want PettingZoo's turn-based API: PettingZoo has both games itself.
"""

import copy
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from pettingzoo import ParallelEnv

from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.trees import Arrays, tree_map
from marl_tune.envs.world import STAYS, TERMINATED, TRUNCATED, World

Observation: TypeAlias = Arrays  # of one agent
AgentActions: TypeAlias = Mapping[str, int | np.ndarray]  # agent -> action
Info: TypeAlias = dict[str, object]  # name of a metric -> value
Reset: TypeAlias = tuple[dict[str, Observation], dict[str, Info]]
Transition: TypeAlias = tuple[
    dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Info]
]  # observations, rewards, terminations, truncations, infos


class WorldParallelEnv(ParallelEnv):
    """One copy of a world behind PettingZoo's parallel API.

    In most worlds all agents of all groups act in every step and end together. In a world where they take turns, die or
    join (`World.acting`), `agents` are those that act next. A step then also returns the results of agents that have
    ended with it, and rewards of agents that did not act. The infos of an episode's last step hold its metrics.

    Args:
        world: a world with `num_envs` 1.
        name: shown as the name of the environment.

    Raises:
        ValueError: if the world has more than one copy.
    """

    def __init__(self, world: World, name: str):
        if world.num_envs != 1:
            raise ValueError(f"a ParallelEnv is one copy of a world, got num_envs={world.num_envs}")
        self.metadata = {"name": name, "render_modes": ["rgb_array"], "render_fps": 15, "is_parallelizable": True}
        self.render_mode = "rgb_array"
        self.world = world
        self.possible_agents = [agent for group in world.groups for agent in group.agents]
        self.agents: list[str] = []
        # The agents of a group share a space object. Here each gets its own, so that seeding one does not reseed
        # others.
        self.observation_spaces, self.action_spaces = (
            {agent: copy.deepcopy(getattr(group, kind)) for group in world.groups for agent in group.agents}
            for kind in ("observation_space", "action_space")
        )

    def observation_space(self, agent: str) -> gym.Space:
        """The space of one agent's observations; the same object at every call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space:
        """The space of one agent's actions; the same object at every call."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, object] | None = None) -> Reset:
        """Starts an episode. Without a seed, the world goes on with its generator. `options` are ignored.

        Returns:
            Observations and infos, each by agent.
        """
        observations = self._by_agent(self.world.reset(None if seed is None else [seed]))
        self.agents = self._acting()
        return {agent: observations[agent] for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions: AgentActions) -> Transition:
        """One step of all agents.

        Returns:
            Observations, rewards, terminations, truncations and infos, each by agent.

        Raises:
            ValueError: if `actions` are not of exactly the agents in `agents`; it is empty after the end of an episode.
        """
        if set(actions) != set(self.agents):
            raise ValueError(f"exactly the {len(self.agents)} live agents must act, got actions of {sorted(actions)}")
        if not actions:
            return {}, {}, {}, {}, {}
        step = self.world.step({group.name: self._actions(group, actions) for group in self.world.groups})
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        done = terminated or truncated
        info: Info = {}
        if done:
            info = {name: float(value[0]) for name, value in self.world.episode_metrics(np.array([0])).items()}
        if step.left is None:
            terminations, truncations = dict.fromkeys(self.agents, terminated), dict.fromkeys(self.agents, truncated)
        else:
            how = self._by_agent(step.left)
            present = [*self._acting(), *(agent for agent, end in how.items() if end != STAYS)]
            terminations = {agent: bool(how[agent] == TERMINATED) for agent in present}
            truncations = {agent: bool(how[agent] == TRUNCATED) for agent in present}
        observations, rewards = self._by_agent(step.observations), self._by_agent(step.rewards)
        result = (
            {agent: observations[agent] for agent in terminations},
            {agent: float(reward) for agent, reward in rewards.items() if agent in terminations or reward != 0},
            terminations,
            truncations,
            {agent: dict(info) for agent in terminations},
        )
        self.agents = [] if done else self._acting()
        return result

    def _acting(self) -> list[str]:
        """The agents that act in the next step."""
        if self.world.acting is None:
            return list(self.possible_agents)
        acts = self._by_agent(self.world.acting)
        return [agent for agent in self.possible_agents if acts[agent]]

    def _actions(self, group: AgentGroup, actions: AgentActions) -> np.ndarray:
        """The actions of a group, (1, N, ...); zeros for agents that do not act."""
        space = group.action_space
        rows = np.zeros((1, len(group.agents), *(space.shape or ())), space.dtype)
        for column, agent in enumerate(group.agents):
            if agent in actions:
                rows[0, column] = actions[agent]
        return rows

    def render(self) -> np.ndarray:
        """See `World.render`."""
        return self.world.render(0)

    def close(self) -> None:
        """Does nothing: the world is closed by whoever made it."""

    def _by_agent(self, grouped: Mapping[str, Arrays]) -> dict[str, Any]:
        """Arrays (1, N, ...) by group -> arrays (...) by agent."""
        result: dict[str, Any] = {}
        for group in self.world.groups:
            values = grouped[group.name]
            for index, agent in enumerate(group.agents):
                result[agent] = tree_map(itemgetter((0, index)), values)
        return result
