"""The two works that every contestant is measured on, as data: what one PPO iteration samples and learns from.

W1: three agents of MPE's simple_spread_v3 cover three landmarks. W2: a colony of ten ants forages on a 20 x 20 grid.
The networks, the batches, the epochs and the settings of the loss are the same for every contestant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marl_tune.config.schema.sweep import SweepConfig


@dataclass(frozen=True)
class WorldChoice:
    """One way in which marl_tune steps the world of a work."""

    words: tuple[str, ...]  # words of the command line that choose it
    copies: int  # copies stepped at once, where nothing else is asked for


@dataclass(frozen=True)
class Work:
    """One iteration of PPO with parameter sharing; actor and critic are separate tanh networks."""

    name: str  # W1 | W2
    agents: int  # in one copy of the world
    observation_dim: int  # numbers that an agent sees
    num_actions: int  # of an agent: Discrete(num_actions)
    episode_steps: int  # after which a copy is truncated
    env_steps: int  # an iteration, all copies of the world together
    minibatch_size: int  # agent-steps a gradient step
    worlds: Mapping[str, WorldChoice]  # pettingzoo | batched -> how marl_tune steps it; the first one is the default
    num_epochs: int = 4
    gamma: float = 0.99
    lambda_: float = 0.95
    lr: float = 3e-4
    clip_param: float = 0.2
    hidden_dims: tuple[int, ...] = (64, 64)

    @property
    def agent_steps(self) -> int:
        """Agent-steps an iteration."""
        return self.env_steps * self.agents

    @property
    def gradient_steps(self) -> int:
        """Gradient steps an iteration."""
        return self.num_epochs * self.agent_steps // self.minibatch_size

    def setting(self, world: str | None = None, copies: int | None = None) -> tuple[str, int]:
        """The name of a world and the copies of it, with the defaults of the work for what is None.

        Raises:
            ValueError: the work has no such world.
        """
        name = next(iter(self.worlds)) if world is None else world
        if name not in self.worlds:
            raise ValueError(f"--world must be one of {', '.join(self.worlds)} for {self.name}, got {name}")
        return name, self.worlds[name].copies if copies is None else copies

    def fragment(self, copies: int) -> int:
        """Steps of each of `copies` copies in one iteration.

        Raises:
            ValueError: the copies do not share the steps evenly, so that contestants would do unequal work.
        """
        if copies < 1 or self.env_steps % copies:
            raise ValueError(f"--envs must divide the {self.env_steps} env steps of {self.name}, got {copies}")
        return self.env_steps // copies

    def words(
        self, world: str, copies: int, *, rollout: str = "batched", workers: int = 0, threads: int = 1
    ) -> list[str]:
        """This work as the words of marl_tune's command line.

        Args:
            world: one of `worlds`.
            copies: copies of the world stepped at once.
            rollout: batched | rllib (RLlib's own runner on the same world).
            workers: processes that step the PettingZoo worlds; 0: the trial's own.
            threads: of torch.
        """
        self.fragment(copies)
        if workers and world != "pettingzoo":
            raise ValueError(f"--workers is for PettingZoo worlds, got {workers} with the world {world}")
        return [
            f"name=benchmark_{self.name}",
            *self.worlds[world].words,
            *([f"env.workers={workers}"] if workers else []),
            *("module=mlp", f"module.hidden_dims={list(self.hidden_dims)}", "module.activation=tanh"),
            *("module.separate_critic=true", "sharing=parameter_sharing", "search=none"),
            *("logger=csv", "logger.progress=off"),
            *("algorithm=ppo", f"algorithm.lr={self.lr}", f"algorithm.gamma={self.gamma}"),
            *(f"algorithm.lambda_={self.lambda_}", f"algorithm.clip_param={self.clip_param}"),
            *("algorithm.entropy_coeff=0", "algorithm.use_kl_loss=false"),
            *("algorithm.vf_clip_param=null", "algorithm.grad_clip=null"),
            f"algorithm.train_batch_size={self.agent_steps}",
            f"algorithm.minibatch_size={self.minibatch_size}",
            f"algorithm.num_epochs={self.num_epochs}",
            *("cluster=local", f"cluster.rollout={rollout}"),
            *(f"cluster.num_envs_per_env_runner={copies}", f"cluster.torch_threads={threads}"),
        ]

    def sweep(
        self, world: str, copies: int, *, rollout: str = "batched", workers: int = 0, threads: int = 1
    ) -> SweepConfig:
        """The sweep that `words` compose."""
        from marl_tune.config.compose import compose

        return compose(self.words(world, copies, rollout=rollout, workers=workers, threads=threads))[0]


WORKS = {
    "W1": Work(
        name="W1",
        agents=3,
        observation_dim=18,
        num_actions=5,
        episode_steps=25,
        env_steps=6000,
        minibatch_size=1500,
        worlds={
            "pettingzoo": WorldChoice(
                ("env=pettingzoo", "env.id=mpe/simple_spread_v3", "+env.kwargs.max_cycles=25"), 120
            ),
            "batched": WorldChoice(("env=mpe/simple_spread", "env.n_agents=3", "env.max_cycles=25"), 240),
        },
    ),
    "W2": Work(
        name="W2",
        agents=10,
        observation_dim=9,
        num_actions=5,
        episode_steps=200,
        env_steps=2000,
        minibatch_size=2000,
        worlds={
            "batched": WorldChoice(
                ("env=ant_colony", "env.grid_size=[20,20]", "env.n_agents=10", "env.max_steps=200"), 50
            )
        },
    ),
}
