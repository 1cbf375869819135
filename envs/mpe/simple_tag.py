"""Simple tag: slow adversaries chase fast agents among obstacles."""

from dataclasses import dataclass, field

import numpy as np

from marl_tune.envs.mpe.particles import Bodies, ParticleConfig, ParticleWorld

CATCH_REWARD = 10.0


@dataclass
class SimpleTagConfig(ParticleConfig):
    """Rules of simple tag."""

    num_good: int = field(metadata={"structural": True})
    # number of agents that are chased, >= 1
    num_adversaries: int = field(metadata={"structural": True})
    # number of agents that chase, >= 1
    num_obstacles: int = field(metadata={"structural": True})
    # number of obstacles, >= 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(1, "num_good", "num_adversaries")
        self.check_at_least(0, "num_obstacles")

    @property
    def n_agents(self) -> int:
        """Agents of all groups together."""
        return self.num_good + self.num_adversaries


class SimpleTag(ParticleWorld):
    """A adversaries, G good agents and O obstacles, B copies at once. It equals PettingZoo's simple_tag_v3.

    Description:
        All entities push each other apart. Adversaries: radius 0.075, acceleration 3, speed at most 1. Good agents:
        radius 0.05, acceleration 4, speed at most 1.3. Obstacles: radius 0.2.

    Actions (Discrete(5), or Box(0, 1, (5,)) with `continuous_actions`):
        0: nothing, 1: -x, 2: +x, 3: -y, 4: +y; thrust. Continuous: the thrust in each of these directions, opposite
        ones subtracted.

    Observations (Box, float32), all without bounds:
        | index | meaning | unit |
        |---|---|---|
        | 0, 1 | velocity of the agent | per second |
        | 2, 3 | position of the agent | - |
        | 2 O | x, y from the agent to each obstacle | - |
        | 2 (A + G - 1) | x, y from the agent to each other agent, adversaries first | - |
        | 2 G, for a good agent 2 (G - 1) | velocity of each good agent except itself | per second |

    Rewards:
        Adversaries, all the same: +10 for each pair of an adversary and a good agent that overlap now. Good agent: -10
        for each adversary that it overlaps now, minus a penalty for leaving the area, for x and for y. With z the
        absolute value of the coordinate, the penalty is 0 for z < 0.9, (z - 0.9) * 10 for z in [0.9, 1), and min(exp(2
        z - 2), 10) above.

    Start:
        Agents are uniform in [-1, 1] x [-1, 1], obstacles in [-0.9, 0.9] x [-0.9, 0.9]; all are at rest.

    End:
        Truncated after `max_cycles` steps, never terminated.

    Metrics:
        `catches`: pairs of an adversary and a good agent that overlap, summed over the steps of the episode.

    Arguments:
        config: the rules.
        num_envs: B, the number of copies.

    Source:
        Predator-prey of Lowe et al. 2017, https://arxiv.org/abs/1706.02275.
    """

    Config = SimpleTagConfig
    config: SimpleTagConfig

    def __init__(self, config: SimpleTagConfig, num_envs: int = 1):
        hunters = Bodies("adversary", config.num_adversaries, 0.075, (0.85, 0.35, 0.35), True, 3.0, 1.0)
        good = Bodies("agent", config.num_good, 0.05, (0.35, 0.85, 0.35), True, 4.0, 1.3)
        obstacles = Bodies("landmark", config.num_obstacles, 0.2, (0.25, 0.25, 0.25), True)
        self._good = range(config.num_adversaries, config.n_agents)
        super().__init__(config, num_envs, (hunters, good), obstacles)
        self._catches = np.zeros(num_envs, np.int64)  # (B,) pairs x steps

    def _sees(self, agent: int) -> list[int]:
        others = self.others(agent)
        offsets = [self.offset_to(entity, agent) for entity in (*self.landmarks, *others)]
        velocities = [self.velocity_of(other) for other in self._good if other != agent]
        return [self.velocity_of(agent), self.position_of(agent), *offsets, *velocities]

    def _place(self, copy: int, rng: np.random.Generator) -> None:
        agents = self.num_agents
        self.position[:agents, :, copy] = rng.uniform(-1.0, 1.0, (agents, 2))
        self.position[agents:, :, copy] = rng.uniform(-0.9, 0.9, (self.num_entities - agents, 2))
        self._catches[copy] = 0

    def _score(self) -> np.ndarray:
        hunters = self.config.num_adversaries
        caught_by = self.touching()[:hunters, hunters:].sum(axis=0)  # (G, B) adversaries that touch each good agent
        catches = caught_by.sum(axis=0)
        self._catches += catches
        penalty = _outside(self.position[hunters : self.num_agents])
        rewards = np.empty((self.num_agents, self.num_envs))
        rewards[:hunters] = CATCH_REWARD * catches
        rewards[hunters:] = -CATCH_REWARD * caught_by - penalty[:, 0] - penalty[:, 1]
        return rewards

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`; the name is explained at the class."""
        return {"catches": self._catches[copies].astype(np.float64)}

    def _arrays(self) -> dict[str, np.ndarray]:
        return super()._arrays() | {"catches": self._catches}


def _outside(position: np.ndarray) -> np.ndarray:
    """The penalty for each coordinate, in the shape of `position`."""
    size = np.abs(position)
    near, far = (size - 0.9) * 10.0, np.minimum(np.exp(2.0 * np.minimum(size, 3.0) - 2.0), 10.0)
    return np.where(size < 0.9, 0.0, np.where(size < 1.0, near, far))
