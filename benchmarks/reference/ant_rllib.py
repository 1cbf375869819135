"""The lean ant colony as RLlib's own kind of environment: no layer of PettingZoo in between."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from benchmarks.reference.ant import ACTION, ANTS, OBSERVATION, AntColony


class AntColonyMultiAgent(MultiAgentEnv):
    """One colony of `benchmarks.reference.ant`."""

    def __init__(self) -> None:
        super().__init__()
        self.colony = AntColony()
        self.possible_agents = list(ANTS)
        self.agents = list(ANTS)
        self.observation_spaces = dict.fromkeys(ANTS, OBSERVATION)
        self.action_spaces = dict.fromkeys(ANTS, ACTION)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        return dict(zip(ANTS, self.colony.reset(seed), strict=True)), {}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        observations, rewards, terminated, truncated = self.colony.step(np.array([actions[ant] for ant in ANTS]))
        return (
            dict(zip(ANTS, observations, strict=True)),
            dict(zip(ANTS, rewards.tolist(), strict=True)),
            dict.fromkeys((*ANTS, "__all__"), terminated),
            dict.fromkeys((*ANTS, "__all__"), truncated),
            {},
        )
