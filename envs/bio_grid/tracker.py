"""A scripted policy for the bio grid: agents follow the pheromone to a node, wait for a team, and go home when full."""

import numpy as np

from marl_tune.envs.agent_group import Actions
from marl_tune.envs.bio_grid.world import GROUP, STAY, BioGrid

FRESH = 0.97  # pheromone above this share of a node's steady level is taken for a node, not for an old mark
FULL = 0.999  # load that an agent goes home with
QUIT = 0.05  # probability in each step that an agent which waits in vain leaves


class Tracker:
    """Plays the bio grid from the agents' own observations. Its memory is a way-point and the last load of each agent.

    An agent that senses a node in its cell stays until it is full. If nobody drains the node, it stays for 20 steps on
    average. An agent with a load and without a node carries the load to the nest. An agent without a load goes to a
    neighbour cell whose pheromone, by the gradient, is that of a node. Otherwise it goes to a way-point: first to the
    cell where it was last filled, then to cells drawn at random. Agents deposit nothing, so all pheromone comes from
    nodes. If the pheromone hardly decays, old marks are taken for nodes. With much diffusion no cell has the level of a
    node, and the search is random.

    Args:
        world: the grid to play.
        seed: of the random way-points.
    """

    def __init__(self, world: BioGrid, seed: int = 0):
        self.world = world
        self._rng = np.random.default_rng(seed)
        self._sides, self._nest = np.array(world.sides), np.array(world.config.nest)
        shape = (world.num_envs, len(world.groups[0].agents))
        self._goal = np.zeros((*shape, 3), np.int64)  # (B, N, 3) way-point of each agent
        self._roams = np.zeros(shape, np.bool_)  # (B, N) whether it goes there and ignores pheromone
        self._load = np.zeros(shape, np.float32)  # (B, N) one step ago
        scent, loss = world.config.node_scent, 1 - world.config.pheromone_decay
        self._node_level = FRESH * scent / max(scent, loss) if scent else np.inf

    def act(self, observations: dict[str, np.ndarray]) -> Actions:
        """Observations (B, N, 12) of the group `agents` -> its actions (B, N) int64."""
        seen = observations[GROUP]
        load, level = seen[..., 3], seen[..., 4]
        cell = np.rint(seen[..., 0:3] * (self._sides - 1)).astype(np.int64)
        started = np.broadcast_to((self.world.episode_steps == 0)[:, None], load.shape)
        arrived = (self._goal == cell).all(axis=-1)
        self._roams &= ~(started | arrived)

        full, at_node = load > FULL, level >= self._node_level
        in_vain = at_node & ~full & ~self._roams & (load <= self._load)
        quits = in_vain & (self._rng.random(load.shape) < QUIT)
        self._roams |= quits
        self._draw_goals(started | arrived | quits)
        self._goal[at_node & full] = cell[at_node & full]
        self._load = load

        homing = full | ((load > 0) & ~at_node)
        smelt, move = self._best_neighbour(cell, level, seen[..., 5:8])
        target = np.where(homing[..., None], self._nest, self._goal) - cell
        tracks = (smelt >= self._node_level) & ~homing & ~self._roams
        actions = np.where(tracks, move, _move_along(target))
        return {GROUP: np.where(at_node & ~full & ~self._roams, STAY, actions)}

    def _best_neighbour(
        self, cell: np.ndarray, level: np.ndarray, gradient: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The highest pheromone level among the neighbour cells, by the gradient, and the move that leads there.

        At a wall the gradient is the neighbour's level minus the own level. Elsewhere it is half the difference of two
        neighbours, so that the higher one is at least twice the gradient.
        """
        at_low, at_high = cell == 0, cell == self._sides - 1
        own = level[..., None]
        down = np.where(at_low, 0.0, np.where(at_high, own - gradient, -2 * gradient))
        up = np.where(at_high, 0.0, np.where(at_low, own + gradient, 2 * gradient))
        levels = np.stack((down, up), axis=-1).reshape(*level.shape, 6)  # in the order of the moves
        return levels.max(axis=-1), levels.argmax(axis=-1)

    def _draw_goals(self, agents: np.ndarray) -> None:
        """Draws way-points for `agents` (B, N) bool, uniformly from the grid."""
        self._goal[agents] = self._rng.integers(self._sides, size=(np.count_nonzero(agents), 3))


def _move_along(vector: np.ndarray) -> np.ndarray:
    """The move along the largest component of each vector, (..., 3) -> (...) in 0..6; 6 (stay) if all are 0."""
    axis = np.abs(vector).argmax(axis=-1)
    along = np.take_along_axis(vector, axis[..., None], axis=-1)[..., 0]
    return np.where(along == 0, STAY, 2 * axis + (along > 0))
