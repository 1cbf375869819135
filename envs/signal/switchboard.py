"""A scripted policy for the signal world that knows what all agents see."""

import numpy as np

from marl_tune.envs.agent_group import Actions
from marl_tune.envs.signal.world import GROUP, Signal


class Switchboard:
    """Reads the observations of all agents, as over a perfect channel. It is always right: the upper bound.

    Args:
        world: the world to play.
    """

    def __init__(self, world: Signal):
        self._count = world.config.n_agents

    def act(self, observations: dict[str, np.ndarray]) -> Actions:
        """Observations (B, N, 2 N + K) of the group `agents` -> its actions, (B, N) int64."""
        seen, count = observations[GROUP], self._count
        partner = seen[..., count : 2 * count].argmax(axis=-1)
        return {GROUP: np.take_along_axis(seen[..., 2 * count :].argmax(axis=-1), partner, axis=1)}
