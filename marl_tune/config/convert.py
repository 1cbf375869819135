"""Converts plain data (what YAML and JSON hold) to the dataclasses of a sweep, and back.

The types of values are checked here: those of a composed config, of a saved sweep and of a trial's overrides.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar, overload

from marl_tune.config import registry
from marl_tune.config.errors import ConfigError, invalid, unknown
from marl_tune.config.schema.sweep import SweepConfig

T = TypeVar("T")


def to_dict(sweep: SweepConfig) -> dict[str, object]:
    """The sweep as nested dicts and lists of plain values, fit for YAML and JSON. `from_dict` is its inverse."""
    return dataclasses.asdict(sweep)


def from_dict(data: Mapping[str, Any]) -> SweepConfig:
    """The sweep that `data` holds. Raises `ConfigError` for a wrong key, type or range."""
    plain = dict(data)
    for group in registry.GROUPS:
        if group in plain:
            plain[group] = build_option(group, plain[group])
    plain["group_options"] = {
        group: {name: build_option(group, option) for name, option in chosen.items()}
        for group, chosen in plain.get("group_options", {}).items()
    }
    return build(SweepConfig, plain, "")


def build_option(group: str, data: object) -> Any:
    """The option of a group that `data` holds, as its dataclass. The key `name` says which option it is."""
    if not isinstance(data, Mapping) or "name" not in data:
        raise invalid(group, "be one option of the group, with its name", data)
    return build(registry.schema(group, data["name"]), data, group)


@overload
def build(kind: type[T], value: object, key: str) -> T: ...


@overload
def build(kind: object, value: object, key: str) -> Any: ...


def build(kind: object, value: object, key: str) -> Any:
    """Checks and converts `value` for a field, whose annotated type is `kind`.

    A whole float is accepted for an int (samplers draw floats), and an int for a float. Nothing else is converted.

    Args:
        kind: a dataclass, list, dict, union or plain type, or Any.
        value: plain data.
        key: dotted key of the field, for messages.

    Raises:
        ConfigError: a key, type or range is wrong.
    """
    if kind is Any:
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, key)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return build(_alternative(args, value), value, key)
    if origin is list:
        if not isinstance(value, list | tuple):
            raise invalid(key, "be a list", value)
        return [build(args[0], item, f"{key}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise invalid(key, "be a mapping", value)
        return {str(name): build(args[1], item, f"{key}.{name}") for name, item in value.items()}
    return _build_plain(kind, value, key)


def _alternative(kinds: Sequence[object], value: object) -> object:
    """The member of a union, such as `float | list[float]`, for a value: the list if it is a list, else the first."""
    a_list = [kind for kind in kinds if typing.get_origin(kind) is list and isinstance(value, list | tuple)]
    return (a_list or [kind for kind in kinds if kind is not type(None)])[0]


def field_types(schema: type) -> dict[str, object]:
    """Name -> annotated type of the fields of a dataclass, in order."""
    hints: dict[str, object] = typing.get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def _build_dataclass(schema: type[Any], value: object, key: str) -> Any:
    if isinstance(value, schema):
        return value
    if not isinstance(value, Mapping):
        raise invalid(key, f"be a mapping with the keys {', '.join(field_types(schema))}", value)
    types_, prefix = field_types(schema), f"{key}." if key else ""
    for name in value:
        if name not in types_:
            raise unknown("key", f"{prefix}{name}", [f"{prefix}{field}" for field in types_])
    values = {name: build(types_[name], item, f"{prefix}{name}") for name, item in value.items()}
    for field in dataclasses.fields(schema):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name not in values:
            raise ConfigError(f"{prefix}{field.name} must be set, got nothing")
    try:
        return schema(**values)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:  # the schemas of envs/ and modules/ know nothing of ConfigError
        raise ConfigError(str(error)) from error


def _build_plain(kind: object, value: object, key: str) -> bool | int | float | str:
    """A bool, int, float or string."""
    if kind is bool and isinstance(value, bool):
        return value
    if isinstance(value, Real) and not isinstance(value, bool):
        if kind is int and (isinstance(value, Integral) or float(value).is_integer()):
            return int(float(value)) if not isinstance(value, Integral) else int(value)
        if kind is float:
            return float(value)
    if kind is str and isinstance(value, str):
        return value
    names: dict[object, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    raise invalid(key, f"be {names[kind]}", value)
