"""The ant colony of work W2 as others would write it: one lean copy, and its PettingZoo environment.

The rules are those of `marl_tune.envs.ant_colony` in all that costs time: 10 ants on 20 x 20 cells, 3 pieces of
food, pheromone, 9 numbers observed, 200 steps; no ant leaves before the episode ends.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from pettingzoo import ParallelEnv

SIDE, FOOD, MAX_STEPS = 20, 3, 200  # cells, pieces, steps
ANTS = tuple(f"ant_{i}" for i in range(10))
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]])
USE = 4  # the action that picks up or delivers
FAR = 10**6  # coordinate of a piece that is gone
OBSERVATION = gym.spaces.Box(-1, 1, (9,), np.float32)
ACTION = gym.spaces.Discrete(5)


class AntColony:
    """One colony, with arrays over its ants."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng()
        self.nest = np.array([SIDE // 2, SIDE // 2])

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begins an episode; returns the observations (10, 9)."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.steps = 0
        self.pheromone = np.zeros((SIDE, SIDE), np.float32)
        self.position = self.nest + self.rng.integers(-2, 3, (len(ANTS), 2))
        self.carrying = np.zeros(len(ANTS), bool)
        self.food = self.rng.integers(0, SIDE, (FOOD, 2))
        self.there = np.ones(FOOD, bool)
        return self._observe()

    def _observe(self) -> np.ndarray:
        padded = np.pad(self.pheromone, 1)
        x, y = self.position[:, 0] + 1, self.position[:, 1] + 1
        around = np.stack([padded[x, y + 1], padded[x, y - 1], padded[x + 1, y], padded[x - 1, y]], axis=1)
        food = np.where(self.there[:, None], self.food, FAR)
        nearest = ((self.position[:, None] - food[None]) ** 2).sum(axis=-1).argmin(axis=1)
        way = (np.where(self.carrying[:, None], self.nest, food[nearest]) - self.position).astype(np.float32)
        way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-9)
        return np.concatenate([self.position / SIDE, self.carrying[:, None], around, way], axis=1).astype(np.float32)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool, bool]:
        """Actions (10,) -> observations (10, 9), rewards (10,), terminated, truncated."""
        self.steps += 1
        left = self.position
        self.position = np.clip(left + MOVES[actions], 0, SIDE - 1)
        rewards = np.full(len(ANTS), -0.01, np.float32)
        for ant in np.flatnonzero(actions == USE):
            if not self.carrying[ant]:
                self._pick_up(ant, rewards)
            elif (self.position[ant] == self.nest).all():
                self.carrying[ant], rewards[ant] = False, 10.0
        np.add.at(self.pheromone, (left[:, 0], left[:, 1]), 0.1 * (1 + self.carrying))
        self.pheromone = np.clip(self.pheromone * 0.95, 0, 1)
        terminated = not self.there.any() and not self.carrying.any()
        return self._observe(), rewards, terminated, self.steps >= MAX_STEPS

    def _pick_up(self, ant: int, rewards: np.ndarray) -> None:
        here = np.flatnonzero(self.there & (self.food == self.position[ant]).all(axis=1))
        if len(here):
            self.there[here[0]] = False
            self.carrying[ant], rewards[ant] = True, 1.0


class AntColonyParallel(ParallelEnv):
    """The colony as a PettingZoo environment."""

    metadata: dict[str, Any] = {"name": "ant_colony_reference", "render_modes": []}  # noqa: RUF012 (PettingZoo's)
    render_mode = None

    def __init__(self) -> None:
        self.colony = AntColony()
        self.possible_agents = list(ANTS)
        self.agents = list(ANTS)

    def observation_space(self, agent: str) -> gym.Space:
        return OBSERVATION

    def action_space(self, agent: str) -> gym.Space:
        return ACTION

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.agents = list(ANTS)
        return dict(zip(ANTS, self.colony.reset(seed), strict=True)), {ant: {} for ant in ANTS}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        observations, rewards, terminated, truncated = self.colony.step(np.array([actions[ant] for ant in ANTS]))
        if terminated or truncated:
            self.agents = []
        return (
            dict(zip(ANTS, observations, strict=True)),
            dict(zip(ANTS, rewards.tolist(), strict=True)),
            dict.fromkeys(ANTS, terminated),
            dict.fromkeys(ANTS, truncated),
            {ant: {} for ant in ANTS},
        )
