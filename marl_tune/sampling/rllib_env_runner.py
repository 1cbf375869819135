"""`cluster.rollout=rllib`: RLlib's own runner on the same world, to compare with; for stateless modules only."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.tune.registry import register_env

from marl_tune.envs.parallel_env import WorldParallelEnv


class WorldMultiAgentEnv(MultiAgentEnv):
    """One copy of a world, as RLlib knows it: observations come from those that act next, or have ended."""

    def __init__(self, env: WorldParallelEnv):
        super().__init__()
        self.env = env
        self.agents = self.possible_agents = list(env.possible_agents)
        self.observation_space = gym.spaces.Dict({agent: env.observation_space(agent) for agent in self.agents})
        self.action_space = gym.spaces.Dict({agent: env.action_space(agent) for agent in self.agents})

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Starts an episode: observations and infos by agent."""
        return self.env.reset(seed=seed, options=options)

    def step(self, action_dict: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """One step; the episode is over when nobody is left, and truncated if one of the last was cut off."""
        observations, rewards, terminated, truncated, infos = self.env.step(action_dict)
        over = not self.env.agents
        cut_off = over and any(truncated.values())
        ends = terminated | {"__all__": over and not cut_off}, truncated | {"__all__": cut_off}
        return observations, rewards, *ends, infos

    def render(self) -> Any:
        """A picture of the copy."""
        return self.env.render()


def multi_agent_env(env_config: dict[str, Any]) -> WorldMultiAgentEnv:
    """One copy of the world that `env_config` makes."""
    return WorldMultiAgentEnv(WorldParallelEnv(env_config["world"](1), name="world"))


class RllibEnvRunner(MultiAgentEnvRunner):
    """RLlib's runner with what a trial asks of `BatchedEnvRunner`; after a checkpoint it begins new episodes."""

    def __init__(self, *, config: Any, **kwargs: Any):
        register_env(config.env, multi_agent_env)  # in this process: a runner may live in one of its own
        super().__init__(config=config, **kwargs)

    def make_env(self) -> None:
        """Builds the vectorised environment; RLlib registers it again each time, of which gymnasium warns."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Overriding environment.*")
            super().make_env()

    def apply_settings(self, config: Any, new_world: bool) -> None:
        """Takes over a changed config between two `sample()` calls; rebuilds the world where its rules changed."""
        self.config = config.copy(copy_frozen=False)
        if new_world and self.env is not None:
            self.make_env()

    def get_rollout_state(self) -> dict[str, Any]:
        """Nothing: RLlib's environments cannot be saved."""
        return {}

    def set_rollout_state(self, state: dict[str, Any], go_on: bool) -> None:
        """New episodes, with the seed of this runner."""
        self._needs_initial_reset = True
