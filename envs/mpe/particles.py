"""The base of the MPE worlds: discs on a plane that accelerate, push each other apart and slow down.

Source: Mordatch & Abbeel 2018, https://arxiv.org/abs/1703.04908; Lowe et al. 2017, https://arxiv.org/abs/1706.02275.
Floats are computed in the order of PettingZoo's mpe/_mpe_utils/core.py. So the same seed and actions lead to the same
episode, bit by bit.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import Actions, AgentGroup, Observations
from marl_tune.envs.array_world import ArrayWorld
from marl_tune.envs.curriculum import WorldConfig
from marl_tune.envs.groups import checked_actions, checked_choices
from marl_tune.envs.mpe.particles_render import draw_particles
from marl_tune.envs.world import Step, WorldState

STEP_TIME = 0.1  # seconds that a step takes
DAMPING = 0.25  # share of the velocity that an entity loses in a step
ACCELERATION = 5.0  # default acceleration of an agent at full thrust
CONTACT_FORCE = 100.0  # on an entity of mass 1, per unit of overlap
CONTACT_MARGIN = 1e-3  # distance over which the contact force rises
NO_CONTACT = -746.0  # exp of this is 0 in float64
DIRECTIONS = np.array(((0.0, 0.0), (-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)))  # thrust of actions 0..4


@dataclass
class ParticleConfig(WorldConfig):
    """Settings of every particle world. All but the structural fields can change between two episodes of a trial."""

    name: str
    # stem of the world, such as mpe/simple_spread
    max_cycles: int
    # steps until an episode is truncated, >= 1
    continuous_actions: bool = field(metadata={"structural": True})
    # false: Discrete(5); true: Box(0, 1, (5,))
    dynamic_rescaling: bool
    # pictures zoom out until all entities are visible; true: discs shrink, too; false: discs keep their size

    def __post_init__(self) -> None:
        self.check_at_least(1, "max_cycles")

    def check_at_least(self, low: int, *keys: str) -> None:
        """Raises ValueError for the first of the settings `keys` that is below `low`."""
        for key in keys:
            if getattr(self, key) < low:
                raise ValueError(f"env.{key} must be at least {low}, got {getattr(self, key)}")


@dataclass(frozen=True)
class Bodies:
    """Entities with the same properties: a group of agents, or the landmarks."""

    name: str
    # name of the group; its agents are <name>_0, <name>_1, ...
    count: int
    # how many there are, >= 0
    radius: float
    # radius of the disc
    colour: tuple[float, float, float]
    # red, green, blue in [0, 1]
    collides: bool
    # whether it pushes other entities that collide, and is pushed by them
    acceleration: float = ACCELERATION
    # acceleration of an agent at full thrust
    max_speed: float = np.inf
    # highest speed of an agent


class ParticleWorld(ArrayWorld):
    """Agents and landmarks on a plane without borders, B copies at once. Each entity has mass 1. Landmarks do not move.

    Internally, the copies are the last axis of every array. So NumPy's inner loops run over the copies, and sums over
    entities are computed one after the other, as in PettingZoo's loops.

    Args:
        config: the settings.
        num_envs: B.
        teams: the groups of agents, N agents in all; teams that collide come first.
        landmarks: the entities that do not move. Agents and landmarks together are E entities. Landmarks may collide
        only if
            all agents do.
    """

    config: ParticleConfig

    def __init__(self, config: ParticleConfig, num_envs: int, teams: tuple[Bodies, ...], landmarks: Bodies):
        self.config, self.num_envs = config, num_envs
        self.num_agents = sum(team.count for team in teams)
        self.num_entities = self.num_agents + landmarks.count
        self.landmarks = range(self.num_agents, self.num_entities)
        self._build_state()
        self._build_physics((*teams, landmarks))
        self._build_groups(teams)
        self._rngs = [np.random.default_rng() for _ in range(num_envs)]

    def _build_state(self) -> None:
        """Makes one table of vectors with all that can be observed; position, velocity and offset are views of it."""
        agents, entities, copies = self.num_agents, self.num_entities, self.num_envs
        self._first_offset = agents + entities
        self._vectors = np.zeros((self._first_offset + entities * agents + 1, 2, copies))  # (vectors, 2, B); last: 0
        self._velocity = self._vectors[:agents]  # (N, 2, B)
        self.position = self._vectors[agents : self._first_offset]  # (E, 2, B)
        offset = self._vectors[self._first_offset : -1]
        self._offset = offset.reshape(entities, agents, 2, copies)  # (E, N, 2, B) from each agent to each entity
        self._distance = np.zeros((entities, agents, copies))  # (E, N, B) length of that; inf from an agent to itself
        self.episode_steps = np.zeros(copies, np.int64)  # (B,) steps since the copy's reset

    def _build_physics(self, bodies: tuple[Bodies, ...]) -> None:
        def of_each(values: Iterable[float | tuple[float, ...]]) -> np.ndarray:
            return np.repeat(np.array(list(values), np.float64), [kind.count for kind in bodies], axis=0)

        agents = self.num_agents
        self._colliders = sum(kind.count for kind in bodies if kind.collides)  # C: the first C of the entities collide
        self._radius = of_each(kind.radius for kind in bodies)  # (E,)
        self._colour = of_each(kind.colour for kind in bodies)  # (E, 3)
        self._reach = (self._radius[: self._colliders, None] + self._radius[:agents])[..., None]  # (C, N, 1)
        self._forces = np.zeros((1 + self._colliders, agents, 2, self.num_envs))  # thrust, then push by each collider
        self._acceleration = of_each(kind.acceleration for kind in bodies)[:agents, None]  # (N, 1)
        self._max_speed = of_each(kind.max_speed for kind in bodies)[:agents, None]  # (N, 1)
        self._has_speed_limit = bool(np.isfinite(self._max_speed).any())

    def _build_groups(self, teams: tuple[Bodies, ...]) -> None:
        kind = gym.spaces.Box(0.0, 1.0, (5,)) if self.config.continuous_actions else gym.spaces.Discrete(5)
        groups, self.members, self._seen, first = [], {}, {}, 0
        for team in teams:
            members = range(first, first + team.count)
            seen = np.array([self._sees(agent) for agent in members])  # (n, vectors) rows of the table
            space = gym.spaces.Box(-np.inf, np.inf, (2 * seen.shape[1],), np.float32)
            names = tuple(f"{team.name}_{index}" for index in range(team.count))
            groups.append(AgentGroup(team.name, names, space, kind, positions=self._positions_in(seen, members)))
            self.members[team.name] = slice(members.start, members.stop)
            self._seen[team.name] = seen
            first = members.stop
        self.groups = tuple(groups)

    def _positions_in(self, seen: np.ndarray, members: range) -> tuple[int, int] | None:
        """The entries of an observation that are the agent's own position; None if it is not observed."""
        own = np.array([self.position_of(agent) for agent in members])
        columns = np.flatnonzero((seen == own[:, None]).all(axis=0))
        return (2 * int(columns[0]), 2 * int(columns[0]) + 1) if len(columns) else None

    # What each world adds.

    @abstractmethod
    def _sees(self, agent: int) -> list[int]:
        """The vectors of one agent's observation, in order; see `velocity_of`, `position_of`, `offset_to`,
        `nothing`."""

    @abstractmethod
    def _place(self, copy: int, rng: np.random.Generator) -> None:
        """Draws the start of one copy's episode: the positions of the entities, and the state that the world adds."""

    @abstractmethod
    def _score(self) -> np.ndarray:
        """Rewards (N, B) for the state after a step. Also counts what the metrics need. Called once a step."""

    def velocity_of(self, agent: int) -> int:
        """Index of the vector of an agent's velocity, per second."""
        return agent

    def position_of(self, entity: int) -> int:
        """Index of the vector of an entity's position."""
        return self.num_agents + entity

    def offset_to(self, entity: int, agent: int) -> int:
        """Index of the vector from an agent to an entity."""
        return self._first_offset + entity * self.num_agents + agent

    @property
    def nothing(self) -> int:
        """Index of the vector that is always 0."""
        return len(self._vectors) - 1

    def others(self, agent: int) -> list[int]:
        """All agents except this one."""
        return [other for other in range(self.num_agents) if other != agent]

    # The World interface.

    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """See `World.reset`. A seed starts the same episode as in PettingZoo."""
        fresh = []
        for copy, rng in self._restarted(seeds, copies):
            self._place(copy, rng)
            fresh.append(copy)
        self._velocity[..., fresh] = 0.0
        self.episode_steps[fresh] = 0
        self._measure()
        return self.observe()

    def step(self, actions: Actions) -> Step:
        """See `World.step`. Continuous actions are clipped to [0, 1].

        Raises:
            ValueError: for actions of the wrong shape, outside 0..4, or NaN.
        """
        self._forces[0] = self._thrust(actions)
        self._move()
        self.episode_steps += 1
        rewards = self._score().T.astype(np.float32, order="C")
        truncated = self.episode_steps >= self.config.max_cycles
        return Step(
            observations=self.observe(),
            rewards={name: rewards[:, members] for name, members in self.members.items()},
            terminated=np.zeros(self.num_envs, np.bool_),
            truncated=truncated,
        )

    def _thrust(self, actions: Actions) -> np.ndarray:
        """The acceleration that each agent chooses, (N, 2, B)."""
        continuous, chosen = self.config.continuous_actions, []
        for group in self.groups:
            checked = checked_actions if continuous else checked_choices
            action = checked(group, actions[group.name], self.num_envs)
            if continuous and np.isnan(action).any():
                raise ValueError(f"actions of {group.name} must be numbers, got nan")
            chosen.append(action)
        action = chosen[0] if len(chosen) == 1 else np.concatenate(chosen, axis=1)  # (B, N) or (B, N, 5)
        if continuous:
            action = action.clip(0.0, 1.0)
            direction = action[..., 2::2] - action[..., 1::2]
        else:
            direction = DIRECTIONS.take(action, axis=0)
        return (direction * self._acceleration).transpose(1, 2, 0)

    def _move(self) -> None:
        """Advances time by one step. Positions change by the old velocities; velocities by the forces at old
        positions."""
        force = self._total_force()
        self.position[: self.num_agents] += self._velocity * STEP_TIME
        self._velocity *= 1.0 - DAMPING
        self._velocity += force * STEP_TIME
        if self._has_speed_limit:
            squared = np.square(self._velocity)
            speed = np.sqrt(squared[:, 0] + squared[:, 1])
            fast = speed > self._max_speed
            self._velocity /= np.where(fast, speed, 1.0)[:, None]
            self._velocity *= np.where(fast, self._max_speed, 1.0)[:, None]
        self._measure()

    def _total_force(self) -> np.ndarray:
        """Thrust plus the contact forces, (N, 2, B): CONTACT_FORCE times a soft maximum of 0 and the overlap."""
        if self._colliders == 0:
            return self._forces[0]
        distance = self._distance[: self._colliders]
        overlap = (self._reach - distance) / CONTACT_MARGIN
        depth = np.zeros_like(overlap)
        np.logaddexp(0.0, overlap, out=depth, where=overlap > NO_CONTACT)
        depth *= CONTACT_MARGIN
        push = np.multiply(self._offset[: self._colliders], -CONTACT_FORCE, out=self._forces[1:])  # (C, N, 2, B)
        push /= distance[:, :, None]
        push *= depth[:, :, None]
        return self._forces.sum(axis=0)

    def _measure(self) -> None:
        """Updates offsets and distances from the positions."""
        np.subtract(self.position[:, None], self.position[: self.num_agents], out=self._offset)
        squared = np.square(self._offset)
        np.sqrt(squared[:, :, 0] + squared[:, :, 1], out=self._distance)
        agents = np.arange(self.num_agents)
        self._distance[agents, agents] = np.inf

    def touching(self) -> np.ndarray:
        """Whether a colliding entity and an agent overlap now, (C, N, B) bool. An agent never touches itself."""
        return self._distance[: self._colliders] < self._reach

    def observe(self) -> Observations:
        observations: Observations = {}
        for name, seen in self._seen.items():
            rows = self._vectors.take(seen, axis=0).reshape(-1, self.num_envs)  # (n * width, B)
            observations[name] = rows.T.astype(np.float32, order="C").reshape(self.num_envs, len(seen), -1)
        return observations

    def render(self, copy: int = 0) -> np.ndarray:
        """The plane from above, y upwards, as PettingZoo draws it: `(700, 700, 3)` uint8."""
        return draw_particles(
            self.position[..., copy], self._radius, self._colours(copy), self.config.dynamic_rescaling
        )

    def _colours(self, copy: int) -> np.ndarray:
        """Red, green and blue of each entity in [0, 1], (E, 3)."""
        return self._colour

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"position": self.position, "velocity": self._velocity, "episode_steps": self.episode_steps}

    def set_state(self, state: WorldState) -> None:
        """See `ArrayWorld.set_state`."""
        super().set_state(state)
        self._measure()
