"""Rules of a sharing scheme: its central critic and its roles."""

from marl_tune.config.errors import ConfigError, invalid
from marl_tune.config.role_settings import role_algorithms, role_modules
from marl_tune.config.schema.algorithm import MappoConfig
from marl_tune.config.schema.sharing import RoleConfig, SharedCriticConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.modules.schemas import SharedEncoderConfig
from marl_tune.results.checkpoint_folder import find_policy


def check_central_critic(sweep: SweepConfig) -> None:
    """Refuses MAPPO without a central critic, and a central critic with RLlib's env runner."""
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


def check_roles(sweep: SweepConfig) -> None:
    """Refuses a role with an unknown field of its module, a value out of range, or a checkpoint that is not there."""
    role_modules(sweep)
    role_algorithms(sweep)
    for name, role in sweep.sharing.roles.items():
        if isinstance(sweep.module, SharedEncoderConfig):
            _check_shared_encoder(f"sharing.roles.{name}", role)
        if role.checkpoint is not None:
            find_policy(role.checkpoint, f"sharing.roles.{name}.checkpoint")


def _check_shared_encoder(key: str, role: RoleConfig) -> None:
    """Refuses a role that trains the shared encoder differently: one encoder has one optimizer."""
    for field, free in (("lr", None), ("trains", True), ("checkpoint", None)):
        if getattr(role, field) != free:
            shown = "true" if free else "null"
            rule = f"be {shown} under module=shared_encoder: the encoder is that of the other roles, too"
            raise invalid(f"{key}.{field}", rule, getattr(role, field))
