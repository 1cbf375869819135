"""Signal: each agent must name a symbol that only another agent sees. It can learn this only by communication."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import Actions, AgentGroup, Observations
from marl_tune.envs.array_world import ArrayWorld
from marl_tune.envs.curriculum import WorldConfig
from marl_tune.envs.groups import checked_choices
from marl_tune.envs.signal.render import draw_ring
from marl_tune.envs.world import Step

GROUP = "agents"


@dataclass
class SignalConfig(WorldConfig):
    """Rules of the signal world. All but the structural fields can change between two episodes of a running trial."""

    name: str
    # stem of the world: signal
    n_agents: int = field(metadata={"structural": True})
    # agents, >= 2
    n_symbols: int = field(metadata={"structural": True})
    # number of symbols, which is also the number of actions, >= 2
    max_steps: int
    # steps until an episode is truncated, >= 1

    def __post_init__(self) -> None:
        for key, low in (("n_agents", 2), ("n_symbols", 2), ("max_steps", 1)):
            if getattr(self, key) < low:
                raise ValueError(f"env.{key} must be at least {low}, got {getattr(self, key)}")


class Signal(ArrayWorld):
    """N agents, each with a partner; B copies at once.

    Description:
        In each step every agent sees one of K symbols. It gets a reward if it names the symbol that its *partner* sees.
        The partners are drawn once an episode: each agent is the partner of exactly one other agent, and not of itself.
        All symbols are drawn in each step, independently and uniformly. So an agent's own observations, present and
        past, say nothing about its partner's symbol.

    Actions (Discrete(K)):
        The symbol that the agent names.

    Observations (Box, float32), each a one-hot code:
        | index | meaning | range |
        |---|---|---|
        | 0 .. N - 1 | which agent it is | 0 or 1 |
        | N .. 2 N - 1 | which agent its partner is | 0 or 1 |
        | 2 N .. 2 N + K - 1 | its own symbol | 0 or 1 |

    Rewards:
        Each agent gets 1 for naming its partner's symbol, else 0. Without communication no policy, with or without
        memory, has a mean reward above 1 / K per step. With communication it can be 1 (`envs/signal/switchboard.py`).

    Start:
        Partners are uniform among all permutations without a fixed point.

    End:
        Truncated after `max_steps` steps, never terminated.

    Metrics:
        `accuracy`: share of right actions among all actions of the episode so far; 1 / K for random actions.

    Arguments:
        config: the rules.
        num_envs: B, the number of copies.

    Source:
        A signalling game after Lewis (1969), Convention, in which each agent both sends and receives. To whom an agent
        should listen is the question of Das et al. 2019, https://arxiv.org/abs/1810.11187.
    """

    Config = SignalConfig

    def __init__(self, config: SignalConfig, num_envs: int = 1):
        self.config, self.num_envs = config, num_envs
        agents, symbols = config.n_agents, config.n_symbols
        self.groups = (
            AgentGroup(
                name=GROUP,
                agents=tuple(f"agent_{i}" for i in range(agents)),
                observation_space=gym.spaces.Box(0.0, 1.0, (2 * agents + symbols,), np.float32),
                action_space=gym.spaces.Discrete(symbols),
            ),
        )
        self._rngs = [np.random.default_rng() for _ in range(num_envs)]
        self._copies = np.arange(num_envs)
        self._agent_code, self._symbol_code = np.eye(agents, dtype=np.float32), np.eye(symbols, dtype=np.float32)
        self._partner = np.tile(np.roll(np.arange(agents), 1), (num_envs, 1))  # (B, N) number of each one's partner
        # (B, max_steps + 1, N) symbols of the whole episode, and of the state after its last step
        self._symbols = np.zeros((num_envs, config.max_steps + 1, agents), np.int64)
        self._named = np.full((num_envs, agents), -1)  # (B, N) last actions, -1 before the first; for the picture only
        self._right = np.zeros((num_envs, agents), np.bool_)  # (B, N) whether they were right; for the picture only
        self._total = np.zeros(num_envs, np.int64)  # (B,) right names of all agents in this episode
        self.episode_steps = np.zeros(num_envs, np.int64)  # (B,) steps since the copy's reset

    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """See `World.reset`."""
        for copy, rng in self._restarted(seeds, copies):
            self._partner[copy] = derangement(self.config.n_agents, rng)
            self._symbols[copy] = rng.integers(self.config.n_symbols, size=self._symbols.shape[1:])
            self._named[copy], self._right[copy] = -1, False
            self._total[copy] = self.episode_steps[copy] = 0
        return self.observe()

    def _now(self) -> np.ndarray:
        """The symbols that the agents see now, (B, N)."""
        # A copy that is done may be stepped once more; its observation is then undefined.
        return self._symbols[self._copies, np.minimum(self.episode_steps, self.config.max_steps)]

    def observe(self) -> Observations:
        own = np.broadcast_to(self._agent_code, (self.num_envs, *self._agent_code.shape))
        seen = (own, self._agent_code.take(self._partner, axis=0), self._symbol_code.take(self._now(), axis=0))
        return {GROUP: np.concatenate(seen, axis=-1)}

    def step(self, actions: Actions) -> Step:
        """See `World.step`. Raises ValueError for an action outside 0..K - 1 or of the wrong shape."""
        self._named[...] = checked_choices(self.groups[0], actions[GROUP], self.num_envs)
        np.equal(self._named, np.take_along_axis(self._now(), self._partner, axis=1), out=self._right)
        self._total += self._right.sum(axis=1)
        self.episode_steps += 1
        truncated = self.episode_steps >= self.config.max_steps
        return Step(self.observe(), {GROUP: self._right.astype(np.float32)}, np.zeros_like(truncated), truncated)

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`; the name is explained at the class."""
        named = self.config.n_agents * np.maximum(self.episode_steps[copies], 1)
        return {"accuracy": self._total[copies] / named}

    def render(self, copy: int = 0) -> np.ndarray:
        """The agents on a ring, with a line to each one's partner: `(height, width, 3)` uint8 pixels."""
        return draw_ring(
            partner=self._partner[copy],
            symbols=self._now()[copy],
            named=self._named[copy],
            right=self._right[copy],
            num_symbols=self.config.n_symbols,
            accuracy=float(self.episode_metrics(np.array([copy]))["accuracy"][0]),
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "partner": self._partner,
            "symbols": self._symbols,
            "named": self._named,
            "right": self._right,
            "total": self._total,
            "episode_steps": self.episode_steps,
        }


def derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation of 0..count - 1 without a fixed point, uniform among these: (count,), count >= 2.

    Drawn until one has none, which takes e = 2.7 draws on average.
    """
    places = np.arange(count)
    while True:
        drawn = rng.permutation(count)
        if not (drawn == places).any():
            return drawn
