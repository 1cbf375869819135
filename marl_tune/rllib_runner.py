"""`cluster.rollout=rllib`: RLlib's own runner on the same world, to compare with; for stateless modules only."""

from __future__ import annotations

import warnings
from typing import Any

from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import register_env

from envs.parallel import WorldParallelEnv


def parallel_env(env_config: dict[str, Any]) -> ParallelPettingZooEnv:
    """One copy of the world, as RLlib's MultiAgentEnv."""
    return ParallelPettingZooEnv(WorldParallelEnv(env_config["world"](1), name="world"))


class RllibEnvRunner(MultiAgentEnvRunner):
    """RLlib's runner with what a trial asks of `BatchedEnvRunner`; after a checkpoint it begins new episodes."""

    def __init__(self, *, config: Any, **kwargs: Any):
        register_env(config.env, parallel_env)  # in this process: a runner may live in one of its own
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
