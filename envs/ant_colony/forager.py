"""A scripted policy for the ant colony: ants go to the nearest food that they see, then home. Without food in sight
they search."""

import numpy as np

from marl_tune.envs.agent_group import Actions
from marl_tune.envs.ant_colony.world import GROUP, USE, AntColony


class Forager:
    """Plays the ant colony from the ants' own observations. Its memory is one cell per ant.

    An ant moves along the larger component of the vector that it observes (to the food or to the nest). At its target
    it picks up or drops. An ant that neither carries nor sees food goes to a way-point: first to the cell where it last
    picked up food, then to cells drawn at random. It ignores pheromone. If `sense_radius` is null, it never searches.

    Args:
        world: the colony to play.
        seed: of the random way-points.
    """

    def __init__(self, world: AntColony, seed: int = 0):
        self.world = world
        self._rng = np.random.default_rng(seed)
        self._sides = np.array((world.width, world.height))
        shape = (world.num_envs, len(world.groups[0].agents))
        self._goal = np.zeros((*shape, 2), np.int64)  # (B, N, 2) way-point of each ant
        self._saw_food = np.zeros(shape, np.bool_)  # (B, N) whether food was in sight one step ago
        self._searches = world.config.sense_radius is not None

    def act(self, observations: dict[str, np.ndarray]) -> Actions:
        """Observations (B, N, 9) of the group `ants` -> its actions (B, N) int64."""
        seen = observations[GROUP]
        carrying, vector = seen[..., 2] > 0, seen[..., 7:9]
        cell = np.rint(seen[..., 0:2] * (self._sides - 1)).astype(np.int64)
        fresh = np.broadcast_to((self.world.episode_steps == 0)[:, None], carrying.shape)
        self._saw_food &= ~fresh
        self._draw_goals(fresh)

        there = ~vector.any(axis=-1)  # on the target, or no food in sight
        lost = there & ~carrying & ~self._saw_food & self._searches
        use = there & ~lost
        self._saw_food = ~there & ~carrying
        self._goal[use & ~carrying] = cell[use & ~carrying]
        self._draw_goals(lost & (self._goal == cell).all(axis=-1))
        target = np.where(lost[..., None], self._goal - cell, vector)
        return {GROUP: np.where(use, USE, _move_along(target))}

    def _draw_goals(self, ants: np.ndarray) -> None:
        """Draws way-points for `ants` (B, N) bool, by the arcsine law. With uniform ones ants would seldom visit the
        edges."""
        share = self._rng.beta(0.5, 0.5, size=(np.count_nonzero(ants), 2))
        self._goal[ants] = np.minimum(share * self._sides, self._sides - 1)


def _move_along(vector: np.ndarray) -> np.ndarray:
    """The move along the larger component of each vector, (..., 2) -> (...) in 0..3; along x if both are equal."""
    x, y = vector[..., 0], vector[..., 1]
    return np.where(np.abs(x) >= np.abs(y), np.where(x > 0, 1, 0), np.where(y > 0, 3, 2))
