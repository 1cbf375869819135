"""The module of each role of a heterogeneous team: `module`, with the fields that the role changes."""

import dataclasses
from typing import Any

from marl_tune.convert import build
from marl_tune.errors import ConfigError
from marl_tune.schema import SweepConfig


def role_modules(sweep: SweepConfig) -> dict[str, Any]:
    """Role -> module dataclass, in the order in which the roles are tried; empty unless `sharing=roles`.

    `ConfigError` names the role's field, sharing.roles.<role>.module.<field>, where one is unknown or out of range.
    """
    return {name: _role_module(sweep.module, f"sharing.roles.{name}", role.module)
            for name, role in sweep.sharing.roles.items()}  # fmt: skip


def _role_module(module: Any, role: str, changes: dict[str, Any]) -> Any:
    if "name" in changes:
        raise ConfigError(f"{role}.module.name must be left out (the class is module.name), got {changes['name']!r}")
    try:
        return build(type(module), dataclasses.asdict(module) | dict(changes), "module")
    except ConfigError as error:
        raise ConfigError(str(error).replace("module.", f"{role}.module.")) from error
