"""Gather: agents on a line of cells meet where their neighbours are."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import AgentGroup, Observations
from marl_tune.envs.array_world import ArrayWorld
from marl_tune.envs.curriculum import WorldConfig
from marl_tune.envs.groups import checked_choices
from marl_tune.envs.world import Step

GROUP = "agents"


@dataclass
class GatherConfig(WorldConfig):
    """Rules of the world. All but the structural fields can change between two episodes of a running trial."""

    name: str
    # stem of the world: gather
    n_agents: int = field(metadata={"structural": True})
    # agents, >= 2
    width: int
    # cells of the line, >= 2
    step_cost: float
    # what a move costs an agent, >= 0
    max_steps: int
    # steps until an episode is truncated, >= 1

    def __post_init__(self) -> None:
        for key, low in (("n_agents", 2), ("width", 2), ("step_cost", 0), ("max_steps", 1)):
            if getattr(self, key) < low:
                raise ValueError(f"env.{key} must be at least {low}, got {getattr(self, key)}")


class Gather(ArrayWorld):
    """N agents on a line of cells, B copies at once.

    Actions (Discrete(3)): 0 moves left, 1 stays, 2 moves right; the ends of the line are walls.

    Observations (Box, float32, in [-1, 1]): own cell (0 is the left end, 1 the right end), and the distance to the
    agents' mean cell.

    Rewards: minus the distance to the mean cell in line lengths, minus `step_cost` for a move.

    Start: cells drawn uniformly.

    End: truncated after `max_steps` steps.

    Metrics: `spread`, the mean distance to the mean cell, in cells.
    """

    Config = GatherConfig

    def __init__(self, config: GatherConfig, num_envs: int = 1) -> None:
        self.config, self.num_envs = config, num_envs
        self.groups = (
            AgentGroup(
                name=GROUP,
                agents=tuple(f"agent_{i}" for i in range(config.n_agents)),
                observation_space=gym.spaces.Box(-1.0, 1.0, (2,), np.float32),
                action_space=gym.spaces.Discrete(3),
            ),
        )
        self._rngs = [np.random.default_rng() for _ in range(num_envs)]
        self._cells = np.zeros((num_envs, config.n_agents), np.int64)  # (B, N)
        self._steps = np.zeros(num_envs, np.int64)  # (B,) since the copy's reset

    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """See `World.reset`."""
        for copy, rng in self._restarted(seeds, copies):
            self._cells[copy] = rng.integers(self.config.width, size=self.config.n_agents)
            self._steps[copy] = 0
        return self._observe()

    def step(self, actions: dict[str, np.ndarray]) -> Step:
        """See `World.step`. Raises ValueError for an action outside 0..2 or of the wrong shape."""
        moves = checked_choices(self.groups[0], actions[GROUP], self.num_envs) - 1
        self._cells[...] = np.clip(self._cells + moves, 0, self.config.width - 1)
        self._steps += 1
        rewards = -np.abs(self._off_centre()) / (self.config.width - 1) - self.config.step_cost * (moves != 0)
        truncated = self._steps >= self.config.max_steps
        return Step(self._observe(), {GROUP: rewards.astype(np.float32)}, np.zeros_like(truncated), truncated)

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`; the name is explained at the class."""
        return {"spread": np.abs(self._off_centre()[copies]).mean(axis=1)}

    def render(self, copy: int = 0) -> np.ndarray:
        """A white pixel for each cell with an agent, 8 times as large."""
        row = np.zeros((1, self.config.width, 3), np.uint8)
        row[0, self._cells[copy]] = 255
        return row.repeat(8, axis=0).repeat(8, axis=1)

    def _off_centre(self) -> np.ndarray:
        """Signed distance of each agent to the mean cell, (B, N)."""
        return self._cells - self._cells.mean(axis=1, keepdims=True)

    def _observe(self) -> Observations:
        seen = np.stack([self._cells, self._off_centre()], axis=-1) / (self.config.width - 1)  # (B, N, 2)
        return {GROUP: seen.astype(np.float32)}

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"cells": self._cells, "steps": self._steps}
