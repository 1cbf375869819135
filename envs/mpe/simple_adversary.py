"""Simple adversary: good agents cover the goal without revealing to the adversary which landmark it is."""

from dataclasses import dataclass, field

import numpy as np

from marl_tune.envs.agent_group import Observations
from marl_tune.envs.mpe.particles import Bodies, ParticleConfig, ParticleWorld

GOAL_COLOUR = (0.15, 0.65, 0.15)
ADVERSARY = 0  # number of the adversary among the agents


@dataclass
class SimpleAdversaryConfig(ParticleConfig):
    """Rules of simple adversary."""

    num_good: int = field(metadata={"structural": True})
    # good agents, and as many landmarks, >= 1 (N in PettingZoo)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(1, "num_good")

    @property
    def n_agents(self) -> int:
        """Agents of all groups together."""
        return 1 + self.num_good


class SimpleAdversary(ParticleWorld):
    """One adversary, N good agents and N landmarks, B copies at once. It equals PettingZoo's simple_adversary_v3.

    Description:
        One landmark is the goal. The adversary does not know which. Entities do not collide. Agents have the radius
        0.15, landmarks 0.08.

    Actions (Discrete(5), or Box(0, 1, (5,)) with `continuous_actions`):
        0: nothing, 1: -x, 2: +x, 3: -y, 4: +y; thrust, at an acceleration of 5. Continuous: the thrust in each of these
        directions, opposite ones subtracted.

    Observations (Box, float32), all without bounds; x, y from the agent to:
        | group `adversary`, index | group `agent`, index | meaning |
        |---|---|---|
        | - | 0, 1 | the goal |
        | 0 ... 2 N - 1 | 2 ... 2 N + 1 | each landmark |
        | 2 N ... 4 N - 1 | 2 N + 2 ... 4 N + 1 | each other agent, the adversary first |

    Rewards:
        Adversary: minus its distance to the goal. Good agents, all the same: the adversary's distance to the goal,
        minus the distance of the good agent that is nearest to the goal.

    Start:
        The goal is uniform among the landmarks. All positions are uniform in [-1, 1] x [-1, 1], at rest.

    End:
        Truncated after `max_cycles` steps, never terminated.

    Metrics:
        `adversary_distance`: distance of the adversary to the goal now. `agent_distance`: distance of the nearest good
        agent to the goal now.

    Arguments:
        config: the rules.
        num_envs: B, the number of copies.

    Source:
        Physical deception of Lowe et al. 2017, https://arxiv.org/abs/1706.02275.
    """

    Config = SimpleAdversaryConfig
    config: SimpleAdversaryConfig

    def __init__(self, config: SimpleAdversaryConfig, num_envs: int = 1):
        adversary = Bodies("adversary", 1, radius=0.15, colour=(0.85, 0.35, 0.35), collides=False)
        good = Bodies("agent", config.num_good, radius=0.15, colour=(0.35, 0.35, 0.85), collides=False)
        landmarks = Bodies("landmark", config.num_good, radius=0.08, colour=(0.15, 0.15, 0.15), collides=False)
        super().__init__(config, num_envs, (adversary, good), landmarks)
        self._goal = np.zeros(num_envs, np.int64)  # (B,) which landmark is the goal
        self._copies = np.arange(num_envs)

    def _sees(self, agent: int) -> list[int]:
        goal = [] if agent == ADVERSARY else [self.nothing]  # `observe` fills it in: the goal changes between episodes
        return [*goal, *(self.offset_to(entity, agent) for entity in (*self.landmarks, *self.others(agent)))]

    def _place(self, copy: int, rng: np.random.Generator) -> None:
        self._goal[copy] = rng.integers(self.config.num_good)  # draws the same as `choice`, and faster
        self.position[..., copy] = rng.uniform(-1.0, 1.0, (self.num_entities, 2))

    def observe(self) -> Observations:
        observations = super().observe()
        to_goal = self._offset[self.num_agents + self._goal, 1:, :, self._copies]  # (B, N, 2)
        seen = observations["agent"]
        assert isinstance(seen, np.ndarray)
        seen[..., :2] = to_goal
        return observations

    def _score(self) -> np.ndarray:
        adversary, good = self._goal_distances()
        rewards = np.empty((self.num_agents, self.num_envs))
        rewards[ADVERSARY] = -adversary
        rewards[1:] = adversary - good
        return rewards

    def _goal_distances(self) -> tuple[np.ndarray, np.ndarray]:
        """Distance to the goal of the adversary and of the good agent nearest to it, (B,) each."""
        distance = self._distance[self.num_agents + self._goal, :, self._copies]  # (B, 1 + N)
        return distance[:, ADVERSARY], distance[:, 1:].min(axis=1)

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`; the names are explained at the class."""
        adversary, good = self._goal_distances()
        return {"adversary_distance": adversary[copies], "agent_distance": good[copies]}

    def _colours(self, copy: int) -> np.ndarray:
        colours = super()._colours(copy).copy()
        colours[self.num_agents + self._goal[copy]] = GOAL_COLOUR
        return colours

    def _arrays(self) -> dict[str, np.ndarray]:
        return super()._arrays() | {"goal": self._goal}
