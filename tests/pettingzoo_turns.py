"""A small turn-based PettingZoo world, `env.id=pettingzoo_turns`, with all that a game of turns may do to a learner."""

from typing import ClassVar

import gymnasium as gym
import numpy as np
from pettingzoo import AECEnv


class Duel(AECEnv):
    """Three players draw lots; who acts twice in a row, who is out of the game, and when it is cut off, is by chance.

    Each action is worth something to every player still in the game, so that rewards arrive on others' turns.
    """

    metadata: ClassVar = {"name": "duel", "render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode
        self.possible_agents = ["player_0", "player_1", "player_2"]
        self.rng = np.random.default_rng()

    def observation_space(self, agent):
        return gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)

    def action_space(self, agent):
        return gym.spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations, self.truncations = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self.turn, self.sum, self._skip_agent_selection = 0, 0.0, None
        self.agent_selection = self.agents[int(self.rng.integers(3))]

    def observe(self, agent):
        return np.array([self.turn, self.sum, self.possible_agents.index(agent)], np.float32)

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self.turn += 1
        self.sum += float(action)
        self._cumulative_rewards[agent] = 0.0
        self.rewards = {other: float(self.rng.normal()) for other in self.agents}
        if self.turn == 20 or (len(self.agents) == 1 and self.rng.random() < 0.3):
            self.truncations = dict.fromkeys(self.agents, True)
        elif len(self.agents) > 1 and self.rng.random() < 0.15:
            self.terminations[self.agents[int(self.rng.integers(len(self.agents)))]] = True
        living = [a for a in self.agents if not (self.terminations[a] or self.truncations[a])] or self.agents
        self.agent_selection = living[int(self.rng.integers(len(living)))]
        self._accumulate_rewards()
        self._deads_step_first()

    def render(self):
        return np.full((5, 7, 3), self.turn, np.uint8)


def env(**kwargs):
    """The world, as PettingZoo's turn-based worlds are made."""
    return Duel(**kwargs)
