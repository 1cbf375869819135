"""The roles of a heterogeneous team: the module of each, how it learns, whether it learns, what it begins with."""

import dataclasses
from typing import Any

from marl_tune.config.convert import build
from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.algorithm import PpoConfig
from marl_tune.config.schema.sharing import HierarchicalConfig, RoleConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.hierarchy import MANAGER

LEARNING = tuple(
    f.name for f in dataclasses.fields(RoleConfig) if f.name in {g.name for g in dataclasses.fields(PpoConfig)}
)
# settings of `algorithm` that a role may change


def role_modules(sweep: SweepConfig) -> dict[str, Any]:
    """Role -> module dataclass, in the order in which the roles are tried; empty where all have `module`.

    Under `sharing=hierarchical` the one role is `manager`. `ConfigError` names the role's field, such as
    sharing.roles.<role>.module.<field>, where one is unknown or out of range.
    """
    if isinstance(sweep.sharing, HierarchicalConfig):
        return {MANAGER: _changed_module(sweep.module, "sharing.manager_module", sweep.sharing.manager_module)}
    return {name: _changed_module(sweep.module, f"sharing.roles.{name}.module", role.module)
            for name, role in sweep.sharing.roles.items()}  # fmt: skip


def _changed_module(module: Any, key: str, changes: dict[str, Any]) -> Any:
    if "name" in changes:
        raise ConfigError(f"{key}.name must be left out (the class is module.name), got {changes['name']!r}")
    return _changed(module, changes, "module", key)


def role_algorithms(sweep: SweepConfig) -> dict[str, Any]:
    """Role -> algorithm dataclass, of those that change it.

    `ConfigError` names the role's field, sharing.roles.<role>.<field>, where one is out of range.
    """
    changes = {name: _learning(role) for name, role in sweep.sharing.roles.items()}
    return {name: _changed(sweep.algorithm, changed, "algorithm", f"sharing.roles.{name}")
            for name, changed in changes.items() if changed}  # fmt: skip


def _learning(role: RoleConfig) -> dict[str, float]:
    return {name: getattr(role, name) for name in LEARNING if getattr(role, name) is not None}


def _changed(settings: Any, changes: dict[str, Any], section: str, key: str) -> Any:
    """`settings` with changes, checked; messages speak of `key` instead of `section`."""
    try:
        return build(type(settings), dataclasses.asdict(settings) | dict(changes), section)
    except ConfigError as error:
        raise ConfigError(str(error).replace(f"{section}.", f"{key}.")) from error
