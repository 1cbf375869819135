"""Pursuit: pursuers on a grid surround evaders that walk at random."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import Actions, AgentGroup, Observations
from marl_tune.envs.array_world import ArrayWorld
from marl_tune.envs.curriculum import WorldConfig
from marl_tune.envs.groups import checked_choices
from marl_tune.envs.sisl.pursuit_map import draw_start, open_sides, wall_cells
from marl_tune.envs.sisl.pursuit_render import draw_pursuit
from marl_tune.envs.world import Step, WorldState

GROUP = "pursuer"
MOVES = ((-1, 0), (1, 0), (0, 1), (0, -1), (0, 0))  # (x, y) of actions 0..4; the first four lead to the neighbour cells
STAY = 4
WALL, PURSUERS, EVADERS = range(3)  # layers of an observation
TRIES = 100  # starts that are drawn before the settings are refused for lack of room


@dataclass
class PursuitConfig(WorldConfig):
    """Rules of pursuit. All but the structural fields can change between two episodes of a running trial."""

    name: str
    # stem of the world: sisl/pursuit
    x_size: int
    # cells along x, >= 1
    y_size: int
    # cells along y, >= 1
    max_cycles: int
    # steps until an episode is truncated, >= 1
    shared_reward: bool
    # true: every pursuer gets the mean of all rewards; false: each gets its own
    n_evaders: int = field(metadata={"structural": True})
    # evaders at the start, >= 1; observations are bounded by this and n_pursuers
    n_pursuers: int = field(metadata={"structural": True})
    # pursuers, >= 1
    obs_range: int = field(metadata={"structural": True})
    # side of the square that a pursuer observes around itself, in cells, odd, >= 1
    n_catch: int
    # number of pursuers on an evader's cell that catch it, >= 1; ignored if surround is true
    freeze_evaders: bool
    # whether evaders stay where they start
    tag_reward: float
    # reward for each evader beside a pursuer, divided by n_pursuers, after each move of a pursuer; finite
    catch_reward: float
    # reward of each pursuer that takes part in one or more catches of a step; finite
    urgency_reward: float
    # reward of each pursuer in each step; finite
    surround: bool
    # true: an evader is caught by pursuers on all open sides of its cell; false: by n_catch of them on its cell
    constraint_window: float
    # side of the part of the map in which all agents start, as a share of the map's side, in (0, 1]

    def __post_init__(self) -> None:
        for key in ("x_size", "y_size", "max_cycles", "n_evaders", "n_pursuers", "obs_range", "n_catch"):
            if getattr(self, key) < 1:
                raise ValueError(f"env.{key} must be at least 1, got {getattr(self, key)}")
        if self.obs_range % 2 == 0:
            raise ValueError(f"env.obs_range must be odd, as a pursuer sees from the middle, got {self.obs_range}")
        for key in ("tag_reward", "catch_reward", "urgency_reward"):
            if not math.isfinite(getattr(self, key)):
                raise ValueError(f"env.{key} must be finite, got {getattr(self, key)}")
        if not 0 < self.constraint_window <= 1:
            raise ValueError(f"env.constraint_window must be in (0, 1], got {self.constraint_window}")
        walls, rng = wall_cells(self.x_size, self.y_size), np.random.default_rng(0)
        if all(draw_start(walls, self.constraint_window, self.team_sizes, rng) is None for _ in range(TRIES)):
            raise ValueError(
                f"env.n_pursuers and env.n_evaders must leave room to start, those of a kind not side by side, got"
                f" {self.n_pursuers} and {self.n_evaders} on a map of {self.x_size} x {self.y_size} cells with"
                f" env.constraint_window={self.constraint_window}"
            )

    @property
    def team_sizes(self) -> tuple[int, int]:
        """Number of pursuers and of evaders."""
        return self.n_pursuers, self.n_evaders


class Pursuit(ArrayWorld):
    """Pursuers and evaders on a grid with a block of walls in the middle, B copies at once. It equals PettingZoo's
    pursuit_v4: the same seed and the same actions lead to the same episode, bit by bit.

    Description:
        Several agents may be on one cell. The order of a step is: pursuers move, one after the other; evaders are
        caught; the other evaders move. An evader moves to one of the four sides or stays, drawn uniformly
        (`freeze_evaders`: all stay). After a move into a wall or off the map an agent stays where it is.

    Actions (Discrete(5)):
        0: -x, 1: +x, 2: +y, 3: -y, 4: stay.

    Observations (Box, float32, (obs_range, obs_range, 3)) of the state after the whole step. They are indexed [y, x,
    layer], and the pursuer is in the middle:
        | layer | meaning | range |
        |---|---|---|
        | 0 | 1 on walls and off the map, else 0 | 0 or 1 |
        | 1 | number of pursuers on the cell, itself included | [0, n_pursuers] |
        | 2 | number of evaders on the cell | [0, n_evaders] |

    Catching:
        With `surround`, an evader is caught if as many sides of its cell hold pursuers as are open. Otherwise it is
        caught if at least `n_catch` pursuers are on its cell. All pursuers on these cells have caught it.

    Rewards, per pursuer:
        - tag_reward / n_pursuers for each evader on the four cells beside it. A side off the map counts as its own
        cell, so
          that evaders on that cell count at an edge. This is computed after each single move of a pursuer: n_pursuers
          times a step, before evaders are caught;
        - catch_reward once in a step in which it has caught one or more evaders;
        - urgency_reward in each step.
        With `shared_reward`, each pursuer gets the mean of all rewards.

    Start:
        A part of the map, of the size `constraint_window`, is drawn uniformly. In it, pursuers and evaders are placed
        on cells drawn uniformly, but never beside or on another agent of their kind. If there is no room left, the draw
        begins anew. (PettingZoo fails or never ends in this case.)

    End:
        Truncated after `max_cycles` steps; terminated if all evaders are caught before. If the last evader is caught in
        the last step, the episode is truncated.

    Metrics:
        `evaders_caught`: number in this episode. `evaders_caught_fraction`: this divided by n_evaders. `tags`: number
        of evaders beside the pursuers after all of them have moved, summed over pursuers and steps, counted as for
        rewards.

    Arguments:
        config: the rules.
        num_envs: B, the number of copies.

    Source:
        Gupta, Egorov, Kochenderfer 2017: Cooperative multi-agent control using deep reinforcement learning,
        https://doi.org/10.1007/978-3-319-71682-4_5; the rules of PettingZoo 1.25.
    """

    Config = PursuitConfig

    def __init__(self, config: PursuitConfig, num_envs: int = 1):
        self.config, self.num_envs = config, num_envs
        side = config.obs_range
        self.groups = (
            AgentGroup(
                name=GROUP,
                agents=tuple(f"{GROUP}_{i}" for i in range(config.n_pursuers)),
                observation_space=gym.spaces.Box(0, max(config.team_sizes), (side, side, 3), np.float32),
                action_space=gym.spaces.Discrete(len(MOVES)),
            ),
        )
        entries = 2 * config.n_pursuers + config.x_size * config.y_size
        self.own_state_space = gym.spaces.Box(0.0, max(1, config.n_evaders), (entries,), np.float32)
        self._rngs = [np.random.default_rng() for _ in range(num_envs)]
        self._build_tables()
        self._build_state()

    def _build_tables(self) -> None:
        """Look-up tables over the cells of a map with a border that holds all that is seen from the edge."""
        size, reach = (self.config.x_size, self.config.y_size), self.config.obs_range // 2
        self._walls = wall_cells(*size)  # (x_size, y_size) bool
        self.border = max(reach, 1)
        self.width, self.height = (side + 2 * self.border for side in size)
        self._num_cells = self.width * self.height  # cell (x, y) has number (y + border) * width + x + border
        cells = np.arange(self._num_cells)
        row, column = np.divmod(cells, self.width)
        self.cell_xy = np.stack((column, row), axis=-1) - self.border  # (cells, 2)
        self._row, self._column = row - reach, column - reach  # (cells,) upper left corner of what is seen from there

        on_map = np.asarray(((self.cell_xy >= 0) & (self.cell_xy < size)).all(axis=-1))  # (cells,) bool
        self._blocked = np.ones(self._num_cells, np.bool_)  # (cells,) off the map, or a wall
        self._blocked[on_map] = self._walls.T.ravel()
        self._open_sides = np.zeros(self._num_cells, np.int64)  # (cells,)
        self._open_sides[on_map] = open_sides(self._walls).T.ravel()
        self._around = np.array([x + y * self.width for x, y in MOVES[:STAY]])  # (4,) a side's cell number less one's
        there = cells[on_map][:, None] + self._around
        self._sides = np.zeros((self._num_cells, STAY), np.int64)  # (cells, 4) where tags count
        self._sides[on_map] = np.where(on_map[there], there, cells[on_map][:, None])
        self.next_cell = np.tile(cells[:, None], len(MOVES))  # (cells, 5) where each action leads
        self.next_cell[on_map, :STAY] = np.where(self._blocked[there], cells[on_map][:, None], there)

    def _build_state(self) -> None:
        copies, side = self.num_envs, self.config.obs_range
        inside = self._num_cells // 2  # any cell will do before the first reset
        self._first = np.arange(copies)[:, None] * self._num_cells  # (B, 1) index of each copy's cell 0 in the maps
        self._copy = np.arange(copies)[:, None]  # (B, 1)
        self.pursuers = np.full((copies, self.config.n_pursuers), inside)  # (B, N) cell number of each
        self.evaders = np.full((copies, self.config.n_evaders), inside)  # (B, E) cell number of each
        self.free = np.ones((copies, self.config.n_evaders), np.bool_)  # (B, E) evaders that are not caught
        self.tags = np.zeros(copies, np.int64)  # (B,) in this episode
        self.episode_steps = np.zeros(copies, np.int64)  # (B,) steps since the copy's reset

        turn = np.arange(self.config.n_pursuers)
        self._has_moved = turn[:, None, None] >= turn  # (N, 1, N) [k, 0, i]: i has moved once the k-th has
        self._layers = np.zeros((copies, self.height, self.width, 3), np.float32)  # what all can be seen of
        self._layers[..., WALL] = self._blocked.reshape(self.height, self.width)
        views = np.lib.stride_tricks.sliding_window_view(self._layers, (side, side), axis=(1, 2))
        self._views = np.moveaxis(
            views, 3, 5
        )  # (B, rows, columns, side, side, 3) by the upper left corner of what is seen
        self._count_pursuers()
        self._count_evaders()

    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """See `World.reset`. A seed starts the same episode as in PettingZoo."""
        for copy, rng in self._restarted(seeds, copies):
            cells = None
            while cells is None:  # this ends: the config has checked that there is room
                cells = draw_start(self._walls, self.config.constraint_window, self.config.team_sizes, rng)
            numbers = (cells[:, 1] + self.border) * self.width + cells[:, 0] + self.border
            self.pursuers[copy], self.evaders[copy] = np.split(numbers, [self.config.n_pursuers])
            self.free[copy] = True
            self.tags[copy], self.episode_steps[copy] = 0, 0
        self._count_pursuers()
        self._count_evaders()
        return self.observe()

    def _count_pursuers(self) -> None:
        """Updates what depends on the pursuers' cells."""
        self._pursuers_on = self._counts(self.pursuers + self._first, PURSUERS)  # (B * cells,) on each cell

    def _count_evaders(self) -> None:
        """Updates what depends on the evaders' cells."""
        self.evaders_on = self._counts((self.evaders + self._first)[self.free], EVADERS)  # (B * cells,) on each cell

    def _counts(self, agents: np.ndarray, layer: int) -> np.ndarray:
        """The number of agents on each cell of all maps, (B * cells,), from the agents' indices; also fills a layer."""
        counts = np.bincount(agents.ravel(), minlength=self.num_envs * self._num_cells)
        self._layers[..., layer] = counts.reshape(self._layers.shape[:3])
        return counts

    def observe(self) -> Observations:
        return {GROUP: self._views[self._copy, self._row.take(self.pursuers), self._column.take(self.pursuers)]}

    def own_state(self) -> np.ndarray:
        """See `World.own_state`: x, y of each pursuer as shares of the map's sides, then the number of evaders on each
        cell, row by row."""
        size = np.array((self.config.x_size, self.config.y_size))
        places = (self.cell_xy[self.pursuers] / np.maximum(size - 1, 1)).reshape(self.num_envs, -1)
        edge, (width, height) = self.border, size
        on_map = self._layers[:, edge : edge + height, edge : edge + width, EVADERS].reshape(self.num_envs, -1)
        return np.concatenate((places, on_map), axis=1, dtype=np.float32)

    def step(self, actions: Actions) -> Step:
        """See `World.step`. Raises ValueError for an action outside 0..4 or of the wrong shape."""
        action = checked_choices(self.groups[0], actions[GROUP], self.num_envs)
        before = self._beside()
        self.pursuers[...] = self.next_cell.take(self.pursuers * len(MOVES) + action)
        self._count_pursuers()
        after = self._beside()
        catchers = self._catch()
        if not self.config.freeze_evaders:
            self._walk()
        self._count_evaders()
        self.tags += after.sum(axis=1)
        self.episode_steps += 1

        rewards = self.rewards_of_step(before, after, catchers).astype(np.float32)
        truncated = self.episode_steps >= self.config.max_cycles
        terminated = ~(self.free.any(axis=1) | truncated)
        return Step(self.observe(), {GROUP: rewards}, terminated, truncated)

    def _beside(self) -> np.ndarray:
        """Number of evaders beside each pursuer now, (B, N)."""
        return self.evaders_on.take(self._sides.take(self.pursuers, axis=0) + self._first[..., None]).sum(axis=-1)

    def _catch(self) -> np.ndarray:
        """Removes evaders that are caught. Returns which pursuers have caught one, (B, N) bool."""
        cells = self.evaders + self._first  # (B, E)
        if self.config.surround:
            posts = cells[..., None] + self._around  # (B, E, 4) where pursuers must stand
            held = (self._pursuers_on.take(posts) > 0).sum(axis=-1)
            caught = held == self._open_sides.take(self.evaders)
        else:
            posts = cells
            caught = self._pursuers_on.take(cells) >= self.config.n_catch
        caught &= self.free
        if not caught.any():
            return np.zeros(self.pursuers.shape, np.bool_)
        self.free &= ~caught
        return np.isin(self.pursuers + self._first, posts[caught])

    def _walk(self) -> None:
        """Moves every evader that is not caught."""
        left = self.free.sum(axis=1).tolist()
        drawn = [rng.integers(len(MOVES), size=count) for rng, count in zip(self._rngs, left, strict=True)]
        moves = np.full(self.evaders.shape, STAY)
        moves[self.free] = np.concatenate(drawn)
        self.evaders[...] = self.next_cell.take(self.evaders * len(MOVES) + moves)

    def rewards_of_step(self, before: np.ndarray, after: np.ndarray, catchers: np.ndarray) -> np.ndarray:
        """Rewards of a step, (B, N) float64: the sum of those after each pursuer's move, in PettingZoo's order of
        addition.

        Args:
            before: (B, N) evaders beside each pursuer before it moves.
            after: (B, N) evaders beside each pursuer after it has moved.
            catchers: (B, N) bool, pursuers that have caught an evader.
        """
        tagged = (self.config.tag_reward * count / self.config.n_pursuers for count in (after, before))
        parts = np.where(self._has_moved, *tagged)  # (N, B, N)
        parts[-1] += self.config.catch_reward * catchers
        parts[-1] += self.config.urgency_reward
        if self.config.shared_reward:
            parts = parts.mean(axis=-1, keepdims=True)
        return np.broadcast_to(sum(parts), after.shape)  # not parts.sum(), which adds in another order

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`; the names are explained at the class."""
        caught = (~self.free[copies]).sum(axis=1).astype(np.float64)
        return {
            "evaders_caught": caught,
            "evaders_caught_fraction": caught / self.config.n_evaders,
            "tags": self.tags[copies].astype(np.float64),
        }

    def render(self, copy: int = 0) -> np.ndarray:
        """The map from above, x to the right and y down, `(height, width, 3)` uint8 pixels."""
        free = self.free[copy]
        return draw_pursuit(
            walls=self._walls,
            pursuers=self.cell_xy[self.pursuers[copy]],
            evaders=self.cell_xy[self.evaders[copy, free]],
            reach=self.config.obs_range // 2,
            left=free.mean(),
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "pursuers": self.pursuers,
            "evaders": self.evaders,
            "free": self.free,
            "tags": self.tags,
            "episode_steps": self.episode_steps,
        }

    def set_state(self, state: WorldState) -> None:
        """See `ArrayWorld.set_state`."""
        super().set_state(state)
        self._count_pursuers()
        self._count_evaders()
