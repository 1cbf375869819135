"""Bio grid: agents in a 3-D grid drain resources in teams, guided by pheromone, and carry them to the nest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import Actions, AgentGroup, DirectionTokens, Observations
from marl_tune.envs.array_world import ArrayWorld
from marl_tune.envs.bio_grid.render import draw_grid
from marl_tune.envs.curriculum import WorldConfig
from marl_tune.envs.world import Step

GROUP = "agents"
MOVES = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))  # of actions 0..5
STAY, DEPOSIT = 6, 7
NUM_ACTIONS = 8
WIDTH = 12  # numbers of an observation
DRAIN_REWARD, DELIVER_REWARD = 0.1, 1.0  # for one unit
ROUNDING = 1e-9  # relative rounding error that sums of equal parts may have


@dataclass
class BioGridConfig(WorldConfig):
    """Rules of the bio grid. All but the structural fields can change between two episodes of a running trial."""

    name: str
    # stem of the world: bio_grid
    grid_size: list[int]
    # [cells along x, cells along y, cells along z], each >= 1
    n_agents: int = field(metadata={"structural": True})
    # agents in the grid, >= 1
    communication_range: float
    # Euclidean distance in cells within which an agent senses others, > 0
    capacity: float
    # units that an agent can carry, > 0
    nest: list[int]
    # cell [x, y, z] where loads are delivered
    n_nodes: int
    # number of resource nodes at any time, >= 1; besides their cells and the nest, at least one cell must be free
    agents_per_node: int
    # number of agents that must be in a node's cell at once to drain it, >= 1 and <= n_agents
    node_amount: float
    # units in a new node, > 0
    drain_rate: float
    # units that a node gives in a step to all agents in its cell together, > 0
    node_scent: float
    # pheromone that a node adds to its cell in a step, in [0, 1]
    pheromone_deposit: float
    # pheromone that an agent deposits with one action, in [0, 1]
    pheromone_decay: float
    # factor on the pheromone in each step, in [0, 1]
    pheromone_diffusion: float
    # share of a cell's pheromone that flows to each of its six neighbours in a step, in [0, 1/6]
    max_steps: int
    # steps until an episode is truncated, >= 1

    def __post_init__(self) -> None:
        if len(self.grid_size) != 3 or min(self.grid_size) < 1:
            raise ValueError(f"env.grid_size must be three numbers of at least 1, got {list(self.grid_size)}")
        if len(self.nest) != 3 or not all(0 <= c < side for c, side in zip(self.nest, self.grid_size, strict=True)):
            raise ValueError(f"env.nest must be a cell of env.grid_size {list(self.grid_size)}, got {list(self.nest)}")
        for key in ("n_agents", "n_nodes", "agents_per_node", "max_steps"):
            if getattr(self, key) < 1:
                raise ValueError(f"env.{key} must be at least 1, got {getattr(self, key)}")
        if self.agents_per_node > self.n_agents:
            raise ValueError(f"env.agents_per_node must be <= env.n_agents={self.n_agents}, got {self.agents_per_node}")
        cells = math.prod(self.grid_size)
        if self.n_nodes > cells - 2:
            raise ValueError(
                f"env.n_nodes must be at least 2 less than the {cells} cells of env.grid_size, got {self.n_nodes}"
            )
        for key in ("communication_range", "capacity", "node_amount", "drain_rate"):
            if not 0 < getattr(self, key) < float("inf"):
                raise ValueError(f"env.{key} must be finite and above 0, got {getattr(self, key)}")
        for key in ("node_scent", "pheromone_deposit", "pheromone_decay"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"env.{key} must be in [0, 1], got {getattr(self, key)}")
        if not 0 <= self.pheromone_diffusion <= 1 / 6:
            raise ValueError(f"env.pheromone_diffusion must be in [0, 1/6], got {self.pheromone_diffusion}")


class BioGrid(ArrayWorld):
    """Agents in a 3-D grid that gather resources in teams, B copies at once.

    Description:
        Resource nodes lie in cells of a 3-D grid. To drain a node, at least `agents_per_node` agents must be in its
        cell at once. Agents do not see nodes; they sense the pheromone that a node adds to its own cell. Several agents
        may be in one cell. The order of a step is: agents move; at their new cells, nodes are drained and loads
        delivered; empty nodes move; the pheromone changes.

    Actions (Discrete(8)):
        0: -x, 1: +x, 2: -y, 3: +y, 4: -z, 5: +z; a move off the grid leaves the agent where it is.
        6: stay. 7: stay and deposit `pheromone_deposit` on the own cell.

    Nodes:
        If at least `agents_per_node` agents are in a node's cell, with or without load, the node gives `drain_rate`
        units (or the rest, if that is less) in equal shares to the agents with free capacity. What exceeds the capacity
        of an agent stays in the node. So a larger team does not empty a node faster. An empty node moves to another
        cell, drawn uniformly from cells without a node and without the nest, and is full again.

    Observations (Box, float32):
        | index | meaning | unit | range |
        |---|---|---|---|
        | 0, 1, 2 | x, y, z of the agent | grid side - 1 | [0, 1] |
        | 3 | load | `capacity` | [0, 1] |
        | 4 | pheromone of the own cell | - | [0, 1] |
        | 5, 6, 7 | its gradient along x, y, z | 1 / cell | [-1, 1] |
        | 8 | number of other agents within `communication_range` | `n_agents` - 1 | [0, 1] |
        | 9, 10, 11 | their mean position minus the own, x, y, z; 0 if there are none | `communication_range` | [-1, 1]
        | The gradient is half the difference of the two neighbour cells; at a wall, the difference of the cell and its
        one neighbour; 0 along a side of one cell. Agents must learn where the nest is: it is always the same cell.

    Pheromone:
        In each step the pheromone is multiplied by `pheromone_decay`. Then from each cell a share `pheromone_diffusion`
        flows to each neighbour in the grid (nothing is lost at walls). Then agents and nodes add theirs, and the result
        is clipped to 1. With the settings of conf/env/bio_grid.yaml a node's cell is at 1 from its third step on, and a
        mark that is not renewed is below 1. So agents can distinguish a node from a place where a node has been.

    Rewards:
        +0.1 for a drained unit, +1 for a delivered unit, each to the agent that carries it. An agent must deliver its
        load before it can drain more. So it cannot collect the first reward without the second. There is no cost of a
        step, because all episodes have the same length.

    Start:
        Agents are on cells drawn uniformly from the grid. Full nodes are on distinct cells drawn uniformly from all
        except the nest. There are no loads and no pheromone.

    End:
        Never terminated; truncated after `max_steps` steps.

    Metrics:
        `resources_delivered`: units. `nodes_drained`: number of emptied nodes. `mean_team_size_at_drain`: number of
        agents in a node's cell, with or without load, mean over the steps in which a node gave something; 0 if there
        are none.

    Arguments:
        config: the rules.
        num_envs: B, the number of copies.

    Source:
        The pheromone is stigmergy after Theraulaz, Bonabeau (1999), https://doi.org/10.1162/106454699568700. The nodes
        are the stick pulling of Ijspeert et al. (2001), https://doi.org/10.1023/A:1011227210047, as a foraging game.
    """

    Config = BioGridConfig

    def __init__(self, config: BioGridConfig, num_envs: int = 1):
        self.config, self.num_envs = config, num_envs
        self.sides: tuple[int, ...] = tuple(int(side) for side in config.grid_size)
        low, high = np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32)
        low[5:8] = low[9:12] = -1.0
        self.groups = (
            AgentGroup(
                name=GROUP,
                agents=tuple(f"agent_{i}" for i in range(config.n_agents)),
                observation_space=gym.spaces.Box(low, high, dtype=np.float32),
                action_space=gym.spaces.Discrete(NUM_ACTIONS),
                tokens=DirectionTokens((5, 6, 7), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))),
                positions=(0, 1, 2),
            ),
        )
        self._rngs = [np.random.default_rng() for _ in range(num_envs)]
        self._build_tables()
        self._build_state()

    def _build_tables(self) -> None:
        """Look-up tables over the cells; cell (x, y, z) has the number (x * height + y) * depth + z."""
        self._num_cells = math.prod(self.sides)
        xyz = np.stack(np.unravel_index(np.arange(self._num_cells), self.sides), axis=-1)  # (cells, 3)
        last = np.array(self.sides) - 1
        self.cell_xyz = xyz.astype(np.float32)
        self._position = (xyz / np.maximum(last, 1)).astype(np.float32)
        self.nest = int(np.ravel_multi_index(tuple(self.config.nest), self.sides))
        self._node_cells = np.delete(np.arange(self._num_cells), self.nest)

        self._next_cell = np.tile(np.arange(self._num_cells)[:, None], NUM_ACTIONS)  # (cells, 8) cell after each action
        for action, move in enumerate(MOVES):
            self._next_cell[:, action] = np.ravel_multi_index(tuple(np.clip(xyz + move, 0, last).T), self.sides)
        self._around = self._next_cell[:, : STAY + 1]  # (cells, 7) the six neighbours (itself at a wall), itself
        at_wall = (xyz == 0) | (xyz == last)
        self._per_cell = np.where(at_wall, 1.0, 0.5).astype(np.float32)  # (cells, 3) 1 / cells that a gradient spans

        # |a - b|² = |a|² + |b|² - 2ab as one product of matrices; whole numbers, so float32 is exact
        squared, one = (self.cell_xyz**2).sum(axis=-1, keepdims=True), np.ones((self._num_cells, 1), np.float32)
        self._as_left = np.concatenate((self.cell_xyz, squared, one), axis=-1)  # (cells, 5)
        self._as_right = np.concatenate((-2 * self.cell_xyz, one, squared), axis=-1)  # (cells, 5)
        self._to_sum = np.concatenate((self.cell_xyz, one), axis=-1)  # (cells, 4)
        reach = min(self.config.communication_range, sum(self.sides))
        self._reach_squared = np.float32(math.floor(reach * reach))

    def _build_state(self) -> None:
        copies, agents, nodes = self.num_envs, self.config.n_agents, self.config.n_nodes
        self.first_cell = np.arange(copies)[:, None] * self._num_cells  # (B, 1) index of each copy's cell 0 in a grid
        self.pheromone = np.zeros(copies * self._num_cells, np.float32)  # (B * cells,)
        self.nodes = np.repeat(self.first_cell, nodes, axis=1) + np.arange(
            nodes
        )  # (B, M) index of each node in the grids
        self.amount = np.zeros((copies, nodes))  # (B, M) units left in each node
        self.cell = np.zeros((copies, agents), np.int64)  # (B, N) cell number of each agent
        self.load = np.zeros((copies, agents))  # (B, N) units carried
        self.delivered = np.zeros(copies)  # (B,) units
        self.emptied = np.zeros(copies, np.int64)  # (B,) nodes
        self.drains = np.zeros(copies, np.int64)  # (B,) steps in which a node gave something, summed over nodes
        self.drainers = np.zeros(copies, np.int64)  # (B,) agents that were in the node's cell then, summed
        self.episode_steps = np.zeros(copies, np.int64)  # (B,) steps since the copy's reset

    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """See `World.reset`."""
        pheromone = self.pheromone.reshape(self.num_envs, -1)
        for copy, rng in self._restarted(seeds, copies):
            self.cell[copy] = rng.integers(self._num_cells, size=self.config.n_agents)
            nodes = rng.choice(self._node_cells, self.config.n_nodes, replace=False)
            self.nodes[copy], self.amount[copy] = nodes + self.first_cell[copy], self.config.node_amount
            pheromone[copy], self.load[copy], self.delivered[copy] = 0.0, 0.0, 0.0
            self.emptied[copy] = self.drains[copy] = self.drainers[copy] = self.episode_steps[copy] = 0
        return self.observe()

    def observe(self) -> Observations:
        cell = self.cell
        observations = np.empty((*cell.shape, WIDTH), np.float32)  # (B, N, 12)
        observations[..., 0:3] = self._position.take(cell, axis=0)
        observations[..., 3] = self.load / self.config.capacity
        around = self.pheromone.take(self._around.take(cell, axis=0) + self.first_cell[..., None])  # (B, N, 7)
        observations[..., 4] = around[..., STAY]
        gradient = around[..., 1:STAY:2] - around[..., 0:STAY:2]
        observations[..., 5:8] = gradient * self._per_cell.take(cell, axis=0)

        right = self._as_right.take(cell, axis=0).swapaxes(1, 2)
        within = (self._as_left.take(cell, axis=0) @ right <= self._reach_squared).astype(np.float32)  # (B, N, N)
        own = self._to_sum.take(cell, axis=0)
        sums = within @ own  # (B, N, 4) x, y, z and number of the agents in range, oneself included
        others = sums[..., 3:] - 1
        observations[..., 8:9] = others / max(self.config.n_agents - 1, 1)
        offset = sums[..., :3] - sums[..., 3:] * own[..., :3]  # to the others, summed
        observations[..., 9:12] = offset / (np.maximum(others, 1) * self.config.communication_range)
        return {GROUP: observations}

    def step(self, actions: Actions) -> Step:
        """See `World.step`. Raises ValueError for an action outside 0..7 or of the wrong shape."""
        action = np.asarray(actions[GROUP])
        if action.shape != self.cell.shape or action.min() < 0 or action.max() >= NUM_ACTIONS:
            raise ValueError(f"actions of {GROUP} must have the shape {self.cell.shape} and be in 0..{DEPOSIT}")
        self.cell[...] = self._next_cell.take(self.cell * NUM_ACTIONS + action)
        place = self.cell + self.first_cell  # (B, N) index of each agent's cell in the grids
        rewards = DRAIN_REWARD * self._drain(place) + DELIVER_REWARD * self._deliver()
        self._change_pheromone(place[action == DEPOSIT])
        self.episode_steps += 1
        truncated = self.episode_steps >= self.config.max_steps
        return Step(self.observe(), {GROUP: rewards.astype(np.float32)}, np.zeros_like(truncated), truncated)

    def _drain(self, place: np.ndarray) -> np.ndarray:
        """Drains the nodes where there is a team. Cell indices of agents (B, N) -> units that each takes (B, N)."""
        rules, cells = self.config, self.pheromone.size
        team = np.bincount(place.ravel(), minlength=cells).take(self.nodes)  # (B, M)
        has_room = self.load < rules.capacity * (1 - ROUNDING)
        takers = np.bincount(place[has_room], minlength=cells).take(self.nodes)
        gives = (team >= rules.agents_per_node) & (takers > 0)
        if not gives.any():
            return np.zeros(place.shape)
        share = np.zeros(cells)  # (B * cells,) for each taker in a cell
        share[self.nodes] = np.where(gives, np.minimum(self.amount, rules.drain_rate) / np.maximum(takers, 1), 0.0)
        taken = np.where(has_room, np.minimum(share.take(place), rules.capacity - self.load), 0.0)
        self.load += taken
        self.amount -= np.bincount(place.ravel(), taken.ravel(), minlength=cells).take(self.nodes)
        self.drains += gives.sum(axis=1)
        self.drainers += (team * gives).sum(axis=1)
        for copy, node in np.argwhere(self.amount < rules.node_amount * ROUNDING):  # rare: none in most steps
            self._move_node(copy, node)
        return taken

    def _move_node(self, copy: int, node: int) -> None:
        """Replaces an empty node by a full one in another cell."""
        nodes = (self.nodes[copy] - self.first_cell[copy]).tolist()
        cell = nodes[node]
        while cell in nodes:
            cell = self._node_cells[self._rngs[copy].integers(self._node_cells.size)]
        self.nodes[copy, node] = cell + self.first_cell[copy, 0]
        self.amount[copy, node] = self.config.node_amount
        self.emptied[copy] += 1

    def _deliver(self) -> np.ndarray:
        """Takes the loads of the agents on the nest. Returns the units of each agent, (B, N)."""
        delivered = np.where(self.cell == self.nest, self.load, 0.0)
        self.load -= delivered
        self.delivered += delivered.sum(axis=1)
        return delivered

    def _change_pheromone(self, deposits: np.ndarray) -> None:
        """Decay and diffusion of the pheromone; then agents (at the indices `deposits`) and nodes add theirs."""
        self.pheromone *= self.config.pheromone_decay
        if self.config.pheromone_diffusion:
            self._spread(self.pheromone.reshape(self.num_envs, *self.sides))
        if deposits.size:
            count = np.bincount(deposits, minlength=self.pheromone.size)
            self.pheromone += (count * self.config.pheromone_deposit).astype(np.float32)
        self.pheromone[self.nodes] += self.config.node_scent
        np.clip(self.pheromone, 0.0, 1.0, out=self.pheromone)  # rounding in the diffusion may give numbers below 0

    def _spread(self, grid: np.ndarray) -> None:
        """Diffusion between neighbour cells, in place; (B, width, height, depth)."""
        flows = [self.config.pheromone_diffusion * np.diff(grid, axis=axis) for axis in (1, 2, 3)]
        for axis, flow in enumerate(flows, start=1):
            along = np.moveaxis(grid, axis, 0)
            along[:-1] += np.moveaxis(flow, axis, 0)
            along[1:] -= np.moveaxis(flow, axis, 0)

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`; the names are explained at the class."""
        copies = np.asarray(copies, dtype=np.intp)
        return {
            "resources_delivered": self.delivered[copies],
            "nodes_drained": self.emptied[copies].astype(np.float64),
            "mean_team_size_at_drain": self.drainers[copies] / np.maximum(self.drains[copies], 1),
        }

    def render(self, copy: int = 0) -> np.ndarray:
        """The layers of the grid side by side, `(height, width, 3)` uint8 pixels."""
        place = self.cell[copy] + self.first_cell[copy]
        team = np.bincount(place, minlength=self.pheromone.size).take(self.nodes[copy])
        return draw_grid(
            pheromone=self.pheromone.reshape(self.num_envs, *self.sides)[copy],
            agents=self.cell_xyz[self.cell[copy]].astype(np.int64),
            loads=self.load[copy] / self.config.capacity,
            nodes=self.cell_xyz[self.nodes[copy] - self.first_cell[copy]].astype(np.int64),
            amounts=self.amount[copy] / self.config.node_amount,
            open_nodes=team >= self.config.agents_per_node,
            nest=self.config.nest,
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "pheromone": self.pheromone,
            "nodes": self.nodes,
            "amount": self.amount,
            "cell": self.cell,
            "load": self.load,
            "delivered": self.delivered,
            "emptied": self.emptied,
            "drains": self.drains,
            "drainers": self.drainers,
            "episode_steps": self.episode_steps,
        }
