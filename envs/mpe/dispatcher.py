"""A scripted policy for simple spread: it assigns a landmark to each agent, with the shortest total distance."""

import numpy as np
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from marl_tune.envs.agent_group import Actions
from marl_tune.envs.mpe.particles import ACCELERATION, DAMPING, STEP_TIME
from marl_tune.envs.mpe.simple_spread import SimpleSpread

COASTING = STEP_TIME / DAMPING  # distance that an agent still moves without thrust, per unit of velocity
THRUST = ACCELERATION * STEP_TIME * COASTING  # distance that one step of full thrust adds


class Dispatcher:
    """Plays simple spread from the agents' own observations, without memory.

    In each step the landmarks are assigned so that the sum of distances is minimal (Kuhn 1955,
    https://doi.org/10.1002/nav.3800020109). An agent thrusts along the axis on which it would stop farthest from its
    landmark; with continuous actions, along both axes and with the exact strength. Agents do not avoid each other.

    Args:
        world: the world to play.
    """

    def __init__(self, world: SimpleSpread):
        self._count = world.config.n_agents
        self._continuous = world.config.continuous_actions

    def act(self, observations: dict[str, np.ndarray]) -> Actions:
        """Observations (B, N, width) of the group `agent` -> its actions, (B, N) int64 or (B, N, 5) float32."""
        seen, count = observations["agent"], self._count
        velocity, to_landmarks = seen[..., :2], seen[..., 4 : 4 + 2 * count].reshape(-1, count, count, 2)
        distances = np.linalg.norm(to_landmarks, axis=-1)  # (B, N, landmarks)
        assigned = np.stack([linear_sum_assignment(one)[1] for one in distances])  # (B, N)
        way = np.take_along_axis(to_landmarks, assigned[..., None, None], axis=2)[:, :, 0]
        missing = (way - COASTING * velocity) / THRUST  # (B, N, 2) in steps of full thrust
        return {"agent": _thrusts(missing) if self._continuous else _moves(missing)}


def _moves(missing: np.ndarray) -> np.ndarray:
    """The discrete action along the larger component; 0 if a step of thrust would be too much: (..., 2) -> (...)."""
    x, y = missing[..., 0], missing[..., 1]
    along_x = np.abs(x) >= np.abs(y)
    move = np.where(along_x, np.where(x > 0, 2, 1), np.where(y > 0, 4, 3))
    return np.where(np.where(along_x, np.abs(x), np.abs(y)) > 0.5, move, 0)


def _thrusts(missing: np.ndarray) -> np.ndarray:
    """The continuous action: nothing, -x, +x, -y, +y in [0, 1]; (..., 2) -> (..., 5) float32."""
    x, y = missing[..., 0], missing[..., 1]
    return np.clip(np.stack((np.zeros_like(x), -x, x, -y, y), axis=-1), 0.0, 1.0)
