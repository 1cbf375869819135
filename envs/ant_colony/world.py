"""Ant colony: ants search a grid for food, carry it to the nest, and leave pheromone where they walk."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from marl_tune.envs import default_config
from marl_tune.envs.agent_group import Actions, AgentGroup, DirectionTokens, Observations
from marl_tune.envs.ant_colony.render import draw_colony
from marl_tune.envs.array_world import ArrayWorld
from marl_tune.envs.curriculum import WorldConfig
from marl_tune.envs.world import Step

if TYPE_CHECKING:
    from marl_tune.envs.parallel_env import WorldParallelEnv

GROUP = "ants"
DIRECTIONS = ((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))  # of actions 0..3 and of observation entries 3..6
USE = 4  # the action that picks up or drops
START_RADIUS = 2  # cells, Chebyshev distance from the nest
PICK_REWARD, DELIVER_REWARD, STEP_REWARD = 1.0, 10.0, -0.01
COVERED = 0.1  # a cell with more pheromone than this is covered
FAR = 1e6  # coordinate of an exhausted source: out of sight on every grid, and its square is finite in float32


@dataclass
class AntColonyConfig(WorldConfig):
    """Rules of the ant colony. All but the structural fields can change between two episodes of a running trial."""

    name: str
    # stem of the world: ant_colony
    grid_size: list[int]
    # [cells along x, cells along y], each >= 2
    n_agents: int = field(metadata={"structural": True})
    # ants per colony, >= 1
    n_food_sources: int
    # cells with food at the start, >= 1 and fewer than the grid has cells
    food_per_source: int
    # pieces in each source, >= 1
    sense_radius: float | None
    # Euclidean distance in cells within which an ant sees food, > 0; null: it sees all food
    pheromone_strength: float
    # deposit of one ant in one step, >= 0; an ant that carries food deposits twice as much
    pheromone_decay: float
    # factor on the pheromone in each step, in [0, 1]
    max_steps: int
    # steps until an episode is truncated, >= 1

    def __post_init__(self) -> None:
        if len(self.grid_size) != 2 or min(self.grid_size) < 2:
            raise ValueError(f"env.grid_size must be two numbers of at least 2, got {list(self.grid_size)}")
        for key in ("n_agents", "n_food_sources", "food_per_source", "max_steps"):
            if getattr(self, key) < 1:
                raise ValueError(f"env.{key} must be at least 1, got {getattr(self, key)}")
        cells = self.grid_size[0] * self.grid_size[1]
        if self.n_food_sources >= cells:
            raise ValueError(
                f"env.n_food_sources must be less than the {cells} cells of env.grid_size, got {self.n_food_sources}"
            )
        if self.sense_radius is not None and not self.sense_radius > 0:
            raise ValueError(f"env.sense_radius must be above 0, or null to see all food, got {self.sense_radius}")
        if not 0 <= self.pheromone_strength < float("inf"):
            raise ValueError(f"env.pheromone_strength must be finite and at least 0, got {self.pheromone_strength}")
        if not 0 <= self.pheromone_decay <= 1:
            raise ValueError(f"env.pheromone_decay must be in [0, 1], got {self.pheromone_decay}")


class AntColony(ArrayWorld):
    """A colony of ants on a grid, B copies at once.

    Description:
        The nest is the cell at the centre, (width // 2, height // 2). Several ants may be on one cell. The order of a
        step is: each ant deposits pheromone, then acts; then the pheromone decays.

    Actions (Discrete(5)):
        0: -x, 1: +x, 2: -y, 3: +y; after a move off the grid the ant stays where it is.
        4: pick up or drop. An ant without food that is on food takes one piece. An ant with food that is on the nest
            delivers it. In all other cases nothing happens (food cannot be dropped elsewhere). If a source has fewer
            pieces than ants that want one, each of these ants has the same probability to get one.

    Observations (Box, float32):
        | index | meaning | unit | range |
        |---|---|---|---|
        | 0, 1 | x, y of the ant | grid side - 1 | [0, 1] |
        | 2 | carrying food | flag | 0 or 1 |
        | 3, 4, 5, 6 | pheromone of the neighbour cell at -x, +x, -y, +y; 0 outside the grid | - | [0, 1] |
        | 7, 8 | unit vector to the nest if carrying, else to the nearest source with food left | - | [-1, 1] |
        The nearest source is that with the smallest Euclidean distance; between two equal distances the choice is
        always the same. The vector is 0 on the target itself, if no food is left, and if no food is within
        `sense_radius`. The nest is seen from everywhere.

    Pheromone:
        In each step an ant deposits `pheromone_strength` on the cell where it was before the step, and twice as much if
        it carried food *before the step* (the flag that it had observed). So the step that picks up deposits once, and
        the step that delivers deposits twice. Then the grid is multiplied by `pheromone_decay` and clipped to [0, 1].

    Rewards:
        +1 for picking up a piece, +10 for delivering a piece, -0.01 in every other step; to the ant that acts.

    Start:
        Ants are on cells drawn uniformly from those within 2 cells (Chebyshev distance) of the nest. Sources are on
        distinct cells drawn uniformly from the whole grid except the nest. There is no pheromone.

    End:
        Terminated when all pieces are delivered; otherwise truncated after `max_steps` steps.

    Metrics:
        `food_collected`: number of delivered pieces. `food_collected_fraction`: this divided by the number of all
        pieces. `pheromone_coverage`: share of cells with more than 0.1 pheromone now. `ant_efficiency`: delivered
        pieces per 1000 steps of the colony, food_collected / steps * 1000.

    Arguments:
        config: the rules.
        num_envs: B, the number of copies.

    Source:
        Trail laying after Dorigo, Maniezzo, Colorni: Ant system (1996), https://doi.org/10.1109/3477.484436, as a
        foraging game.
    """

    Config = AntColonyConfig

    def __init__(self, config: AntColonyConfig, num_envs: int = 1):
        self.config, self.num_envs = config, num_envs
        self.width, self.height = (int(side) for side in config.grid_size)
        self.total_food = config.n_food_sources * config.food_per_source
        low, high = np.zeros(9, np.float32), np.ones(9, np.float32)
        low[7:] = -1.0
        self.groups = (
            AgentGroup(
                name=GROUP,
                agents=tuple(f"ant_{i}" for i in range(config.n_agents)),
                observation_space=gym.spaces.Box(low, high, dtype=np.float32),
                action_space=gym.spaces.Discrete(5),
                tokens=DirectionTokens(indices=(3, 4, 5, 6), directions=DIRECTIONS),
                positions=(0, 1),
            ),
        )
        self._rngs = [np.random.default_rng() for _ in range(num_envs)]
        self._build_tables()
        self._build_state()

    def _build_tables(self) -> None:
        """Makes look-up tables over the cells of a grid with a border of one cell. So no step needs to check for
        edges."""
        width, height, stride = self.width, self.height, self.height + 2
        self._num_cells = (width + 2) * stride  # of one bordered grid; cell (x, y) has number (x + 1) * stride + y + 1
        xy = np.stack(np.divmod(np.arange(self._num_cells), stride), axis=-1) - 1  # (cells, 2)
        self.cell_x, self.cell_y = xy.T.astype(np.float32)
        inside = np.asarray(((xy >= 0) & (xy < (width, height))).all(axis=-1))  # (cells,) bool
        nest = np.array((width // 2, height // 2))
        self._nest = int((nest[0] + 1) * stride + nest[1] + 1)

        self._around = np.array((-stride, stride, -1, 1))  # (4,) cell number of each neighbour less one's own
        cells = np.flatnonzero(inside)
        self._next_cell = np.tile(np.arange(self._num_cells)[:, None], 5)  # (cells, 5) cell after each action
        neighbours = cells[:, None] + self._around
        self._next_cell[cells, :USE] = np.where(inside[neighbours], neighbours, cells[:, None])

        to_nest = (nest - xy).astype(np.float32)
        self._own_view = np.zeros((self._num_cells, 9), np.float32)  # a carrying ant's, without load and pheromone
        self._own_view[:, 0:2] = xy / np.maximum((width - 1, height - 1), 1)
        self._own_view[:, 7:9] = to_nest / np.maximum(np.linalg.norm(to_nest, axis=-1, keepdims=True), 1.0)

        near = inside & (np.abs(xy - nest).max(axis=-1) <= START_RADIUS)
        self._start_cells, self._food_cells = np.flatnonzero(near), cells[cells != self._nest]

    def _build_state(self) -> None:
        copies, ants, sources = self.num_envs, self.config.n_agents, self.config.n_food_sources
        self.first_cell = np.arange(copies)[:, None] * self._num_cells  # (B, 1) index of each copy's cell 0 in a grid
        self.pheromone = np.zeros(copies * self._num_cells, np.float32)  # (B * cells,)
        self.pieces = np.zeros(copies * self._num_cells, np.int64)  # (B * cells,) pieces of food on each cell
        self.sources = np.repeat(self.first_cell, sources, axis=1)  # (B, S) index of each source in the grids
        self.food_x = np.full((copies, 1, sources), FAR, np.float32)  # FAR where a source is exhausted
        self.food_y = np.full((copies, 1, sources), FAR, np.float32)
        self.cell = np.full((copies, ants), self._nest)  # (B, N) cell number of each ant
        self.carrying = np.zeros((copies, ants), np.bool_)  # (B, N)
        self.heading = np.zeros((copies, ants), np.int64)  # (B, N) last move, 0..3; for the picture only
        self.delivered = np.zeros(copies, np.int64)  # (B,) pieces
        self.episode_steps = np.zeros(copies, np.int64)  # (B,) steps since the copy's reset

        strength, radius = self.config.pheromone_strength, self.config.sense_radius
        self._deposits = np.array((strength, 2 * strength), np.float32)  # of an ant without, with food
        longest = self.width + self.height
        self._sight_squared = (longest if radius is None else min(radius, longest)) ** 2
        self._row = np.arange(copies * ants) * sources  # first element of each ant in a (B, N, S) array

    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """See `World.reset`."""
        pheromone, pieces = (grid.reshape(self.num_envs, -1) for grid in (self.pheromone, self.pieces))
        for copy, rng in self._restarted(seeds, copies):
            self.cell[copy] = rng.choice(self._start_cells, self.config.n_agents)
            food = rng.choice(self._food_cells, self.config.n_food_sources, replace=False)
            pheromone[copy], pieces[copy] = 0.0, 0
            pieces[copy, food] = self.config.food_per_source
            self.sources[copy] = food + self.first_cell[copy]
            self.food_x[copy], self.food_y[copy] = self.cell_x[food], self.cell_y[food]
            self.carrying[copy], self.heading[copy] = False, 0
            self.delivered[copy], self.episode_steps[copy] = 0, 0
        return self.observe()

    def observe(self) -> Observations:
        free = ~self.carrying
        observations = self._own_view.take(self.cell, axis=0)  # (B, N, 9) the view of a carrying ant
        observations[..., 2] = self.carrying
        observations[..., 3:7] = self.pheromone.take((self.cell + self.first_cell)[..., None] + self._around)

        dx = self.food_x - self.cell_x.take(self.cell)[..., None]  # (B, N, S)
        dy = self.food_y - self.cell_y.take(self.cell)[..., None]
        squared = dx * dx + dy * dy
        nearest = squared.argmin(axis=-1).ravel() + self._row  # (B * N,)
        squared = squared.take(nearest)
        distance = np.sqrt(np.maximum(squared, 1.0))  # the least but 0 is 1, and 0 / 1 is the 0 wanted there
        distance[squared > self._sight_squared] = np.inf
        for column, delta in ((7, dx), (8, dy)):
            np.copyto(observations[..., column], (delta.take(nearest) / distance).reshape(free.shape), where=free)
        return {GROUP: observations}

    def step(self, actions: Actions) -> Step:
        """See `World.step`. Raises ValueError for an action outside 0..4 or of the wrong shape."""
        action = np.asarray(actions[GROUP])
        if action.shape != self.cell.shape or action.min() < 0 or action.max() > USE:
            raise ValueError(f"actions of {GROUP} must have the shape {self.cell.shape} and be in 0..{USE}")
        left = self.cell + self.first_cell  # (B, N) where the ants stand before the step
        np.add.at(self.pheromone, left.ravel(), self._deposits.take(self.carrying).ravel())
        self.pheromone *= self.config.pheromone_decay
        np.minimum(self.pheromone, 1.0, out=self.pheromone)

        using = action == USE
        rewards = np.full(action.shape, STEP_REWARD, np.float32)
        if using.any():
            self._use(using, left, rewards)
        self.cell[...] = self._next_cell.take(self.cell * 5 + action)
        np.copyto(self.heading, action, where=~using)
        self.episode_steps += 1

        terminated = self.delivered == self.total_food
        truncated = (self.episode_steps >= self.config.max_steps) & ~terminated
        return Step(self.observe(), {GROUP: rewards}, terminated, truncated)

    def _use(self, using: np.ndarray, cell: np.ndarray, rewards: np.ndarray) -> None:
        """Ants pick up and deliver.

        Args:
            using: (B, N) bool, ants that choose this action.
            cell: (B, N) index of each ant's cell in the grids.
            rewards: (B, N), filled in.
        """
        delivers = using & self.carrying & (self.cell == self._nest)
        picks = using & ~self.carrying & (self.pieces.take(cell) > 0)
        if picks.any():
            self._take_food(picks, cell)
        rewards[picks], rewards[delivers] = PICK_REWARD, DELIVER_REWARD
        self.carrying ^= picks | delivers
        self.delivered += delivers.sum(axis=1)

    def _take_food(self, picks: np.ndarray, cell: np.ndarray) -> None:
        """Removes a piece for each ant in `picks` (B, N) bool. Ants that do not get one of the last pieces are set to
        False."""
        claimed = cell[picks]
        np.subtract.at(self.pieces, claimed, 1)
        for index in np.unique(claimed[self.pieces[claimed] < 0]):  # rare: empty in nearly every step
            copy = index // self._num_cells
            claimants = np.flatnonzero(picks[copy] & (cell[copy] == index))
            picks[copy, self._rngs[copy].choice(claimants, -self.pieces[index], replace=False)] = False
            self.pieces[index] = 0
        exhausted = self.pieces.take(self.sources) == 0
        self.food_x[:, 0][exhausted] = self.food_y[:, 0][exhausted] = FAR

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`; the names are explained at the class."""
        copies = np.asarray(copies, dtype=np.intp)
        delivered = self.delivered[copies].astype(np.float64)
        covered = (self.pheromone.reshape(self.num_envs, -1)[copies] > COVERED).sum(axis=1)
        return {
            "food_collected": delivered,
            "food_collected_fraction": delivered / self.total_food,
            "pheromone_coverage": covered / (self.width * self.height),
            "ant_efficiency": 1000.0 * delivered / np.maximum(self.episode_steps[copies], 1),
        }

    def render(self, copy: int = 0) -> np.ndarray:
        """The colony from above, x to the right and y down, `(height, width, 3)` uint8 pixels."""
        shape = (self.num_envs, self.width + 2, self.height + 2)
        return draw_colony(
            pheromone=self.pheromone.reshape(shape)[copy, 1:-1, 1:-1],
            pieces=self.pieces.reshape(shape)[copy, 1:-1, 1:-1],
            ants=np.stack((self.cell_x, self.cell_y), axis=-1)[self.cell[copy]],
            headings=np.array(DIRECTIONS)[self.heading[copy]],
            carrying=self.carrying[copy],
            nest=(self.width // 2, self.height // 2),
            food_left=1.0 - self.delivered[copy] / self.total_food,
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "pheromone": self.pheromone,
            "pieces": self.pieces,
            "sources": self.sources,
            "food_x": self.food_x,
            "food_y": self.food_y,
            "cell": self.cell,
            "carrying": self.carrying,
            "heading": self.heading,
            "delivered": self.delivered,
            "episode_steps": self.episode_steps,
        }


def parallel_env(**settings: object) -> "WorldParallelEnv":
    """The colony as a PettingZoo `ParallelEnv`: see `marl_tune.envs.parallel_env`, which serves every other world, too.

    Args:
        settings: fields of `AntColonyConfig`. The others have the values of conf/env/ant_colony.yaml.
    """
    from marl_tune.envs.parallel_env import WorldParallelEnv  # here, as nothing else in this file needs pettingzoo

    return WorldParallelEnv(AntColony(default_config("ant_colony", **settings)), name="ant_colony")
