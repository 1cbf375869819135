"""Rules over a sharing scheme, its roles and its critic."""

from marl_tune.config.errors import ConfigError, invalid
from marl_tune.config.schema.algorithm import MappoConfig
from marl_tune.config.schema.sharing import SharedCriticConfig
from marl_tune.config.schema.sweep import SweepConfig


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
