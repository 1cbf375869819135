"""Two agents, two steps, and luck that neither can see alone: a parallel world of PettingZoo's API.

Each agent sees a bit of its own. The team earns 1 where both have played their bits in the second step; and 1 where the
bits are equal, -1 where they are not, whatever is played: an agent alone cannot know which, both together can.
"""

from typing import ClassVar

import gymnasium as gym
import numpy as np
from pettingzoo import ParallelEnv

STEPS = 2


class CoordinationGame(ParallelEnv):
    metadata: ClassVar[dict] = {"name": "coordination_game"}

    def __init__(self):
        self.possible_agents, self.agents = ["player_0", "player_1"], []
        self.rng = np.random.default_rng()

    def observation_space(self, agent):
        return gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def action_space(self, agent):
        return gym.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents, self.bits, self.step_number = list(self.possible_agents), self.rng.integers(2, size=2), 0
        return self._seen(), {agent: {} for agent in self.agents}

    def _seen(self):
        return {
            agent: np.array([2 * self.bits[i] - 1, self.step_number / STEPS], np.float32)
            for i, agent in enumerate(self.possible_agents)
        }

    def step(self, actions):
        self.step_number += 1
        over, reward = self.step_number == STEPS, 0.0
        if over:
            played = all(actions[agent] == self.bits[i] for i, agent in enumerate(self.possible_agents))
            reward = float(played) + (1.0 if self.bits[0] == self.bits[1] else -1.0)
        agents = self.agents
        if over:
            self.agents = []
        return (
            self._seen(),
            dict.fromkeys(agents, reward),
            dict.fromkeys(agents, over),
            dict.fromkeys(agents, False),
            {agent: {} for agent in agents},
        )


def parallel_env(**kwargs):
    return CoordinationGame(**kwargs)
