"""The module of each role of a heterogeneous team: `module`, with the fields that the role changes."""

import dataclasses
from typing import Any

from envs.hierarchy import MANAGER
from marl_tune.convert import build
from marl_tune.errors import ConfigError
from marl_tune.schema import SweepConfig
from marl_tune.schema_hierarchy import HierarchicalConfig


def role_modules(sweep: SweepConfig) -> dict[str, Any]:
    """Role -> module dataclass, in the order in which the roles are tried; empty where all have `module`.

    Under `sharing=hierarchical` the one role is `manager`. `ConfigError` names the role's field, such as
    sharing.roles.<role>.module.<field>, where one is unknown or out of range.
    """
    if isinstance(sweep.sharing, HierarchicalConfig):
        return {MANAGER: _changed(sweep.module, "sharing.manager_module", sweep.sharing.manager_module)}
    return {name: _changed(sweep.module, f"sharing.roles.{name}.module", role.module)
            for name, role in sweep.sharing.roles.items()}  # fmt: skip


def _changed(module: Any, key: str, changes: dict[str, Any]) -> Any:
    if "name" in changes:
        raise ConfigError(f"{key}.name must be left out (the class is module.name), got {changes['name']!r}")
    try:
        return build(type(module), dataclasses.asdict(module) | dict(changes), "module")
    except ConfigError as error:
        raise ConfigError(str(error).replace("module.", f"{key}.")) from error
