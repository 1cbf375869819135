"""`cluster.rollout=rllib`: RLlib's own runner on the same environment, to compare with. For stateless modules only."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.tune.registry import register_env

from marl_tune.envs.parallel_env import WorldParallelEnv
from marl_tune.envs.world import World
from marl_tune.sampling.policies import Arrays

Infos = dict[str, dict[str, object]]  # agent -> further information


class EnvConfig(TypedDict):
    """The entries of the env config that are read here."""

    world: Callable[[int], World]  # num_envs -> World


class WorldMultiAgentEnv(MultiAgentEnv):
    """One copy of an environment under RLlib's interface. It gives observations of agents that act next or have ended.

    >>> from marl_tune.envs import default_config, make_world
    >>> world = make_world(default_config("ant_colony", n_agents=2))
    >>> env = WorldMultiAgentEnv(WorldParallelEnv(world, name="ants"))
    >>> observations, _ = env.reset(seed=1)
    >>> list(observations), env.step({"ant_0": 0, "ant_1": 0})[2]["__all__"]
    (['ant_0', 'ant_1'], False)

    Args:
        env: the same copy under PettingZoo's interface.
    """

    def __init__(self, env: WorldParallelEnv):
        super().__init__()
        self.env = env
        self.agents = self.possible_agents = list(env.possible_agents)
        self.observation_space = gym.spaces.Dict({agent: env.observation_space(agent) for agent in self.agents})
        self.action_space = gym.spaces.Dict({agent: env.action_space(agent) for agent in self.agents})

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[dict[str, Arrays], Infos]:
        """Begins an episode and returns observations and infos by agent."""
        return self.env.reset(seed=seed, options=options)

    def step(
        self, action_dict: dict[str, np.ndarray]
    ) -> tuple[dict[str, Arrays], dict[str, float], dict[str, bool], dict[str, bool], Infos]:
        """Takes one step. The episode is over when no agent is left, and truncated if one of the last was truncated."""
        observations, rewards, terminated, truncated, infos = self.env.step(action_dict)
        over = not self.env.agents
        cut_off = over and any(truncated.values())
        ends = terminated | {"__all__": over and not cut_off}, truncated | {"__all__": cut_off}
        return observations, rewards, *ends, infos

    def render(self) -> np.ndarray | None:
        """Returns a picture of the copy."""
        return self.env.render()


def multi_agent_env(env_config: EnvConfig) -> WorldMultiAgentEnv:
    """Returns one copy of the environment that `env_config` describes."""
    return WorldMultiAgentEnv(WorldParallelEnv(env_config["world"](1), name="world"))


class RllibEnvRunner(MultiAgentEnvRunner):
    """RLlib's runner, with the methods of `BatchedEnvRunner` that a trial calls.

    After a checkpoint it begins new episodes.

    Args:
        config: RLlib's AlgorithmConfig.
        kwargs: RLlib's other arguments, for example `worker_index`.
    """

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any):
        register_env(config.env, multi_agent_env)  # in this process: a runner may live in one of its own
        super().__init__(config=config, **kwargs)

    def make_env(self) -> None:
        """Builds the vectorised environment. RLlib registers it again each time, of which gymnasium warns."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Overriding environment.*")
            super().make_env()

    def apply_settings(self, config: AlgorithmConfig, new_world: bool) -> None:
        """Takes over a changed config between two `sample()` calls; see `BatchedEnvRunner.apply_settings`."""
        self.config = config.copy(copy_frozen=False)
        if new_world and self.env is not None:
            self.make_env()

    def get_rollout_state(self) -> dict[str, object]:
        """Returns nothing: RLlib's environments cannot be saved."""
        return {}

    def set_rollout_state(self, state: Mapping[str, object], go_on: bool) -> None:
        """Makes the next fragment begin with new episodes, seeded by this runner."""
        self._needs_initial_reset = True
