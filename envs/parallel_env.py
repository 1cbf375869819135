"""Any world as a PettingZoo `ParallelEnv`, for use outside this framework. The only file here that needs pettingzoo
(and PyYAML)."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from pettingzoo import ParallelEnv

from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.world import STAYS, TERMINATED, TRUNCATED, World


class WorldParallelEnv(ParallelEnv):
    """One copy of a world behind PettingZoo's parallel API.

    All agents of all groups act at every step and end together; in a world where they take turns, die or join
    (`World.acting`), `agents` are those that act next, and a step also tells of those that have ended with it and of
    rewards that came to others. The infos of the last step hold the metrics of the episode.

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
        # Agents of a group share a space object; here each has its own, so that seeding one does not reseed the others.
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

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Starts an episode; without a seed the world's generator goes on. `options` are ignored. Returns observations
        and infos."""
        observations = self._by_agent(self.world.reset(None if seed is None else [seed]))
        self.agents = self._acting()
        return {agent: observations[agent] for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """One step of all agents: observations, rewards, terminations, truncations and infos, each by agent.

        Raises:
            ValueError: if not exactly the live agents act; after the end of an episode no agent is alive.
        """
        if set(actions) != set(self.agents):
            raise ValueError(f"exactly the {len(self.agents)} live agents must act, got actions of {sorted(actions)}")
        if not actions:
            return {}, {}, {}, {}, {}
        step = self.world.step({group.name: self._actions(group, actions) for group in self.world.groups})
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        done, info = terminated or truncated, {}
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

    def _actions(self, group: AgentGroup, actions: dict[str, Any]) -> np.ndarray:
        """(1, N, ...), zeros for those that do not act."""
        space = group.action_space
        rows = np.zeros((1, len(group.agents), *(space.shape or ())), space.dtype)
        for column, agent in enumerate(group.agents):
            if agent in actions:
                rows[0, column] = actions[agent]
        return rows

    def render(self) -> np.ndarray:
        """An RGB picture, `(height, width, 3)` uint8."""
        return self.world.render(0)

    def close(self) -> None:
        """Nothing to release."""

    def _by_agent(self, grouped: dict[str, Any]) -> dict[str, Any]:
        """Arrays (1, N, ...) by group -> arrays (...) by agent."""
        result: dict[str, Any] = {}
        for group in self.world.groups:
            values = grouped[group.name]
            for index, agent in enumerate(group.agents):
                if isinstance(values, dict):
                    result[agent] = {key: array[0, index] for key, array in values.items()}
                else:
                    result[agent] = values[0, index]
        return result
