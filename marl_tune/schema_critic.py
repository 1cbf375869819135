"""Settings of a critic that all agents share, and of MAPPO; see marl_tune/schema.py. Imports neither torch nor ray."""

from dataclasses import dataclass
from typing import Any

from marl_tune.config.errors import ConfigError, invalid
from marl_tune.config.range_checks import above, named, one_of
from marl_tune.schema import PpoConfig, SharingConfig, SweepConfig

ACTORS = ("parameter_sharing", "independent")


@dataclass
class SharedCriticConfig(SharingConfig):
    """Agents act by modules that see their own observations; one critic, which sees the state of the world, values for
    all of them and is needed in training only."""

    actors: str  # who acts by which module: parameter_sharing (one module a group) | independent (one an agent)

    def __post_init__(self) -> None:
        named("sharing.name", self.name, "shared_critic")
        if len(self.roles) > 0:
            raise invalid("sharing.roles", "be empty under sharing=shared_critic", sorted(self.roles))
        one_of("sharing.actors", self.actors, ACTORS)


@dataclass
class MappoConfig(PpoConfig):
    """PPO with a critic that all agents share (Yu et al. 2022, https://arxiv.org/abs/2103.01955). Every field but
    `name` can change in a live trial."""

    NAME = "mappo"

    normalise_values: bool  # the critic learns targets of mean 0 and deviation 1, by running moments
    huber_delta: float | None  # value error from which on the loss is linear, above 0; null: squared throughout
    clip_values: bool  # a value that moves more than clip_param from the old one has no further gradient from its error
    critic_lr: float | None  # step size of the critic's Adam, above 0; null: lr

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("huber_delta", "critic_lr"):
            above(f"algorithm.{key}", getattr(self, key), 0)


def check_critic(sweep: SweepConfig) -> None:
    """The rules between sharing, algorithm and machines: `ConfigError` for the first that is broken."""
    shared = isinstance(sweep.sharing, SharedCriticConfig)
    if isinstance(sweep.algorithm, MappoConfig) and not shared:
        raise ConfigError(
            "algorithm=mappo must have sharing=shared_critic: its critic sees the whole world; got "
            f"sharing={sweep.sharing.name} (add sharing=shared_critic, or take algorithm=ppo)"
        )
    if not shared:
        return
    if sweep.cluster.rollout == "rllib":
        rule = "be batched under sharing=shared_critic: RLlib's runner does not record the state of the world"
        raise invalid("cluster.rollout", rule, sweep.cluster.rollout)


def critic_settings(algorithm: PpoConfig) -> dict[str, Any]:
    """What the algorithm says of the critic's loss, by the names of `CriticSettings`; plain PPO's is squared, unclipped
    and by the actors' step size."""
    if not isinstance(algorithm, MappoConfig):
        return {"lr": algorithm.lr, "normalise_values": False, "huber_delta": None, "clip_param": None}
    return {
        "lr": algorithm.lr if algorithm.critic_lr is None else algorithm.critic_lr,
        "normalise_values": algorithm.normalise_values,
        "huber_delta": algorithm.huber_delta,
        "clip_param": algorithm.clip_param if algorithm.clip_values else None,
    }
