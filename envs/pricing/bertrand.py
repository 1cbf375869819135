"""A scripted policy for the pricing world: every store always charges its Nash price."""

import numpy as np

from marl_tune.envs.agent_group import Actions
from marl_tune.envs.pricing.equilibrium import equilibrium
from marl_tune.envs.pricing.world import GROUP, Pricing


class Bertrand:
    """Every store charges the Nash price of its own d in every step, whatever the others do (Bertrand 1883).

    Args:
        world: the world to play.
    """

    def __init__(self, world: Pricing):
        self._equilibrium = equilibrium(world.config)

    def act(self, observations: dict[str, np.ndarray]) -> Actions:
        """Observations (B, N, 2 + N) of the group `stores` -> its actions, (B, N, 1) float32."""
        return {GROUP: self._equilibrium.nash_at(observations[GROUP][..., 1:2]).astype(np.float32)}
