"""A world of two groups in which all that a learner has to bear happens by chance: turns, deaths, arrivals, waiting."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.array_world import ArrayWorld
from marl_tune.envs.world import STAYS, TERMINATED, TRUNCATED, Step

PARTS = gym.spaces.Dict(
    {"action_mask": gym.spaces.Box(0, 1, (3,), np.int8), "observation": gym.spaces.Box(-np.inf, np.inf, (2, 2))}
)


class Bustle(ArrayWorld):
    """Three workers and two managers. In each step everyone who is there acts with some chance, is paid at times, and
    may leave for good; some join late; a copy ends when nobody is left, or is cut off."""

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.config = SimpleNamespace(name="bustle")
        actions = gym.spaces.Discrete(3)
        self.groups = (
            AgentGroup("worker", ("w0", "w1", "w2"), gym.spaces.Box(-np.inf, np.inf, (4,)), actions),
            AgentGroup("manager", ("m0", "m1"), PARTS, actions),
        )
        self._rngs = [np.random.default_rng() for _ in range(num_envs)]
        self._present = np.zeros((num_envs, 5), np.bool_)  # joined and not gone
        self._gone = np.zeros((num_envs, 5), np.bool_)
        self._acts = np.zeros((num_envs, 5), np.bool_)
        self._time = np.zeros((num_envs, 1), np.int64)
        self._note_who_acts()

    def reset(self, seeds=None, copies=None):
        for copy, rng in self._restarted(seeds, copies):
            self._gone[copy], self._time[copy] = False, 0
            self._present[copy] = rng.random(5) < 0.7
            self._present[copy, rng.integers(5)] = True
            self._choose(copy, rng)
        self._note_who_acts()
        return self._observe()

    def _choose(self, copy, rng):
        """Of those that are there some act next, one at least."""
        self._acts[copy] = self._present[copy] & (rng.random(5) < 0.6)
        there = np.flatnonzero(self._present[copy])
        if len(there):
            self._acts[copy, rng.choice(there)] = True

    def _split(self, array):
        return {"worker": array[:, :3].copy(), "manager": array[:, 3:].copy()}

    def _note_who_acts(self):
        self.acting = self._split(self._acts)

    def _observe(self):
        told = np.zeros((self.num_envs, 5, 4), np.float32)
        told[..., 0], told[..., 1], told[..., 2] = self._time, np.arange(5), self._present.sum(axis=1)[:, None]
        mask = np.ones((self.num_envs, 2, 3), np.int8)
        mask[..., 1] = self._time % 2
        board = told[:, 3:].reshape(self.num_envs, 2, 2, 2)
        return {"worker": told[:, :3].copy(), "manager": {"action_mask": mask, "observation": board.copy()}}

    def step(self, actions):
        left = np.full((self.num_envs, 5), STAYS, np.int8)
        rewards = np.zeros((self.num_envs, 5), np.float32)
        truncated = np.zeros(self.num_envs, np.bool_)
        for copy, rng in enumerate(self._rngs):
            self._time[copy] += 1
            rewards[copy] = np.where(rng.random(5) < 0.5, rng.normal(size=5), 0.0)
            rewards[copy, :3] += 0.1 * actions["worker"][copy] * self._acts[copy, :3]
            leaves = self._present[copy] & (rng.random(5) < 0.12)
            truncated[copy] = rng.random() < 0.02 or self._time[copy, 0] == 30
            left[copy, leaves] = np.where(rng.random(leaves.sum()) < 0.5, TERMINATED, TRUNCATED)
            if truncated[copy]:
                left[copy, self._present[copy] & ~leaves] = TRUNCATED
            self._gone[copy] |= left[copy] != STAYS
            self._present[copy] |= (rng.random(5) < 0.1) & ~truncated[copy] & self._present[copy].any()
            self._present[copy] &= ~self._gone[copy]
            self._choose(copy, rng)
        self._note_who_acts()
        terminated = ~self._present.any(axis=1) & ~truncated
        return Step(self._observe(), self._split(rewards), terminated, truncated, self._split(left))

    def episode_metrics(self, copies):
        return {"gone": self._gone[copies].sum(axis=1).astype(np.float64)}

    def render(self, copy=0):
        return np.zeros((2, 2, 3), np.uint8)

    def _arrays(self):
        return {"present": self._present, "gone": self._gone, "acts": self._acts, "time": self._time}

    def set_state(self, state):
        super().set_state(state)
        self._note_who_acts()
