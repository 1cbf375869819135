"""The settings of each role of a heterogeneous team: its module and its algorithm."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from marl_tune.config.convert import build
from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.algorithm import ActorCriticConfig, PpoConfig
from marl_tune.config.schema.sharing import HierarchicalConfig, RoleConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.hierarchy import MANAGER

T = TypeVar("T")
LEARNING = tuple(
    f.name for f in dataclasses.fields(RoleConfig) if f.name in {g.name for g in dataclasses.fields(PpoConfig)}
)
# settings of `algorithm` that a role may change


def role_modules(sweep: SweepConfig) -> dict[str, Any]:
    """Role -> module dataclass, in the order in which the roles are tried; empty without roles.

    Under `sharing=hierarchical`, `manager` is the only role.

    Raises:
        ConfigError: a field of a role is unknown or out of range; the message names its key, such as
            sharing.roles.<role>.module.<field>.
    """
    if isinstance(sweep.sharing, HierarchicalConfig):
        return {MANAGER: _changed_module(sweep.module, "sharing.manager_module", sweep.sharing.manager_module)}
    return {name: _changed_module(sweep.module, f"sharing.roles.{name}.module", role.module)
            for name, role in sweep.sharing.roles.items()}  # fmt: skip


def _changed_module(module: T, key: str, changes: Mapping[str, object]) -> T:
    """The module's settings with the changes of a role. They may not change which module it is."""
    if "name" in changes:
        raise ConfigError(f"{key}.name must be left out (the class is module.name), got {changes['name']!r}")
    return _changed(module, changes, "module", key)


def role_algorithms(sweep: SweepConfig) -> dict[str, ActorCriticConfig]:
    """Role -> algorithm dataclass, of the roles that change settings of the algorithm.

    Raises:
        ConfigError: a field of a role is out of range; the message names its key, sharing.roles.<role>.<field>.
    """
    changes = {name: _learning(role) for name, role in sweep.sharing.roles.items()}
    return {name: _changed(sweep.algorithm, changed, "algorithm", f"sharing.roles.{name}")
            for name, changed in changes.items() if changed}  # fmt: skip


def _learning(role: RoleConfig) -> dict[str, float]:
    """The settings of the algorithm that a role changes."""
    return {name: getattr(role, name) for name in LEARNING if getattr(role, name) is not None}


def _changed(settings: T, changes: Mapping[str, object], section: str, key: str) -> T:
    """`settings` with changes, checked. Messages name `key` instead of `section`."""
    own: dict[str, Any] = dataclasses.asdict(settings)  # type: ignore[call-overload]  # a dataclass
    try:
        return build(type(settings), own | dict(changes), section)
    except ConfigError as error:
        raise ConfigError(str(error).replace(f"{section}.", f"{key}.")) from error
