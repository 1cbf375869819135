"""The works' worlds as others step them: one copy each."""

from __future__ import annotations

import warnings
from typing import Any

from pettingzoo import ParallelEnv

from benchmarks.works import WORKS


def parallel_env(work: str) -> ParallelEnv:
    """A fresh PettingZoo environment of the work."""
    if work == "W2":
        from benchmarks.reference.ant import AntColonyParallel

        return AntColonyParallel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PettingZoo's: MPE moves to a package of its own
        from pettingzoo.mpe import simple_spread_v3
    spread = WORKS["W1"]
    return simple_spread_v3.parallel_env(N=spread.agents, max_cycles=spread.episode_steps, continuous_actions=False)


def multi_agent_env(config: dict[str, Any]) -> Any:
    """A fresh environment of the work `config["work"]` for RLlib."""
    if config["work"] == "W2":
        from benchmarks.reference.ant_rllib import AntColonyMultiAgent

        return AntColonyMultiAgent()
    from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv

    return ParallelPettingZooEnv(parallel_env("W1"))
