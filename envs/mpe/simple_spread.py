"""Simple spread: agents cover landmarks together and avoid each other."""

from dataclasses import dataclass, field

import numpy as np

from marl_tune.envs.mpe.particles import Bodies, ParticleConfig, ParticleWorld

COVERED = 0.1  # a landmark is covered if an agent's centre is nearer than this


@dataclass
class SimpleSpreadConfig(ParticleConfig):
    """Rules of simple spread."""

    n_agents: int = field(metadata={"structural": True})
    # agents, and as many landmarks, >= 1 (N in PettingZoo)
    local_ratio: float
    # weight of an agent's own reward, in [0, 1]; the weight of the team's reward is 1 - local_ratio

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(1, "n_agents")
        if not 0 <= self.local_ratio <= 1:
            raise ValueError(f"env.local_ratio must be in [0, 1], got {self.local_ratio}")


class SimpleSpread(ParticleWorld):
    """N agents and N landmarks, B copies at once. It equals PettingZoo's simple_spread_v3.

    Description:
        Agents (radius 0.15) push each other apart. Landmarks (radius 0.05) do not collide.

    Actions (Discrete(5), or Box(0, 1, (5,)) with `continuous_actions`):
        0: nothing, 1: -x, 2: +x, 3: -y, 4: +y; thrust, at an acceleration of 5. Continuous: the thrust in each of these
        directions, opposite ones subtracted.

    Observations (Box, float32), all without bounds:
        | index | meaning | unit |
        |---|---|---|
        | 0, 1 | velocity of the agent | per second |
        | 2, 3 | position of the agent | - |
        | 2 N | x, y from the agent to each landmark | - |
        | 2 (N - 1) | x, y from the agent to each other agent | - |
        | 2 (N - 1) | messages of the others: always 0 | - |

    Rewards:
        local_ratio * own + (1 - local_ratio) * team. own: -1 for each other agent that the agent overlaps now. team:
        minus the distance from a landmark to its nearest agent, summed over landmarks.

    Start:
        All positions uniform in [-1, 1] x [-1, 1], at rest.

    End:
        Truncated after `max_cycles` steps, never terminated.

    Metrics:
        `collisions`: pairs of agents that overlap, summed over the steps of the episode. `landmarks_covered`: landmarks
        with an agent's centre within 0.1 now. `landmark_distance`: distance from a landmark to its nearest agent now,
        mean over landmarks.

    Arguments:
        config: the rules.
        num_envs: B, the number of copies.

    Source:
        Cooperative navigation of Lowe et al. 2017, https://arxiv.org/abs/1706.02275.
    """

    Config = SimpleSpreadConfig
    config: SimpleSpreadConfig

    def __init__(self, config: SimpleSpreadConfig, num_envs: int = 1):
        count = config.n_agents
        agents = Bodies("agent", count, radius=0.15, colour=(0.35, 0.35, 0.85), collides=True)
        landmarks = Bodies("landmark", count, radius=0.05, colour=(0.25, 0.25, 0.25), collides=False)
        super().__init__(config, num_envs, (agents,), landmarks)
        self._collisions = np.zeros(num_envs, np.int64)  # (B,) pairs x steps

    def _sees(self, agent: int) -> list[int]:
        others = self.others(agent)
        offsets = [self.offset_to(entity, agent) for entity in (*self.landmarks, *others)]
        return [self.velocity_of(agent), self.position_of(agent), *offsets, *(self.nothing for _ in others)]

    def _place(self, copy: int, rng: np.random.Generator) -> None:
        self.position[..., copy] = rng.uniform(-1.0, 1.0, (self.num_entities, 2))
        self._collisions[copy] = 0

    def _score(self) -> np.ndarray:
        collisions = self.touching().sum(axis=0)  # (N, B) number of others that each agent overlaps
        self._collisions += collisions.sum(axis=0) // 2
        team = -sum(self._nearest())
        ratio = self.config.local_ratio
        return team * (1.0 - ratio) - collisions * ratio

    def _nearest(self) -> np.ndarray:
        """Distance from each landmark to its nearest agent, (N, B)."""
        return self._distance[self.num_agents :].min(axis=1)

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`; the names are explained at the class."""
        nearest = self._nearest()[:, copies]
        return {
            "collisions": self._collisions[copies].astype(np.float64),
            "landmarks_covered": (nearest < COVERED).sum(axis=0).astype(np.float64),
            "landmark_distance": sum(nearest) / self.config.n_agents,
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        return super()._arrays() | {"collisions": self._collisions}
