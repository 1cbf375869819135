"""The settings of one trial: those of the sweep, with some replaced by dotted key."""

import copy
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from marl_tune.config.convert import build, field_types
from marl_tune.config.errors import ConfigError, invalid, suggestion, unknown
from marl_tune.config.registry import SWAPPABLE
from marl_tune.config.role_settings import LEARNING, role_algorithms, role_modules
from marl_tune.config.schema.sharing import HierarchicalConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.curriculum import curriculum_of

# Settings of `cluster` that may differ from trial to trial; the others belong to the whole sweep.
TRIAL_CLUSTER_KEYS = ("num_envs_per_env_runner", "rollout", "torch_threads", "torch_compile", "precision")


def apply(sweep: SweepConfig, overrides: Mapping[str, object]) -> SweepConfig:
    """A new sweep with `overrides` in place; `sweep` stays as it is.

    Groups are replaced first (`{"module": "plasticity"}`), so that dotted keys are those of the new option. Types and
    ranges are checked here. Rules over several settings are checked in `marl_tune.validation`.

    Args:
        sweep: the settings of the sweep.
        overrides: dotted key or group -> value.

    Raises:
        ConfigError: a key, type or range is wrong; the message names the nearest valid key.
    """
    swapped = _swap_groups(sweep, overrides)
    valid = set(trial_keys(swapped))
    touched: dict[str, dict[str, Any]] = {}  # section -> its settings, nested
    for key, value in overrides.items():
        if key in SWAPPABLE or key == "seed":
            continue
        if key not in valid:
            raise unknown("key", key, valid)
        section, *path = key.split(".")
        data = touched.setdefault(section, dataclasses.asdict(getattr(swapped, section)))
        for part in path[:-1]:
            data = data[part]
        data[path[-1]] = value
    sections = {name: build(type(getattr(swapped, name)), data, name) for name, data in touched.items()}
    if "seed" in overrides:
        sections["seed"] = build(int, overrides["seed"], "seed")
    changed = dataclasses.replace(swapped, **sections)
    role_modules(changed)
    role_algorithms(changed)
    return changed


def is_live(sweep: SweepConfig, key: str) -> bool:
    """Whether the value of `key` can change in a running trial. Population based training needs this.

    These are live: all settings of the algorithm; those of an environment that it does not mark as structural (such as
    the number of agents); those that a module, a sharing scheme or a curriculum marks as live; and the same of a role.
    Settings that decide what is built are not: a group, the size of a layer, the seed.
    """
    if of_role := re.fullmatch(r"sharing\.roles\.[^.]+\.(?:(module\..+)|(.+))", key):
        return is_live(sweep, of_role[1]) if of_role[1] else of_role[2] in LEARNING
    section, _, name = key.partition(".")
    if section not in ("algorithm", "env", "module", "sharing") or name in ("", "name"):
        return False
    if section == "algorithm":
        return name in field_types(type(sweep.algorithm))
    part = getattr(sweep, section)
    if section == "env" and name.startswith("curriculum.") and curriculum_of(part) is not None:
        section, part, name = "curriculum", curriculum_of(part), name.removeprefix("curriculum.")
    fields = {field.name: field for field in dataclasses.fields(part)}
    if name not in fields:
        return False
    if section == "env":
        return not fields[name].metadata.get("structural", False)
    return bool(fields[name].metadata.get("live", False))


def trial_keys(sweep: SweepConfig) -> list[str]:
    """All keys that may differ from trial to trial, so that `space` may search them."""
    keys = ["seed", *SWAPPABLE]
    for section in SWAPPABLE:
        keys += _leaves(getattr(sweep, section), section)
    for role in sweep.sharing.roles:
        keys += [f"sharing.roles.{role}.{key}" for key in (*LEARNING, *_leaves(sweep.module, "module"))]
    if isinstance(sweep.sharing, HierarchicalConfig):
        keys += _leaves(sweep.module, "sharing.manager_module")
    return keys + [f"cluster.{name}" for name in TRIAL_CLUSTER_KEYS]


def _leaves(section: object, prefix: str) -> list[str]:
    """Dotted keys of a section's fields, and of the sections and mappings in them. Its `name` is no setting: it says
    which option it is."""
    keys: list[str] = []
    for name in field_types(type(section)):
        if name not in ("name", "roles"):
            keys += [f"{prefix}.{name}", *_inner_leaves(getattr(section, name), f"{prefix}.{name}")]
    return keys


def _inner_leaves(value: object, prefix: str) -> list[str]:
    if dataclasses.is_dataclass(value):
        return _leaves(value, prefix)
    return [f"{prefix}.{key}" for key in value] if isinstance(value, Mapping) else []


def _swap_groups(sweep: SweepConfig, overrides: Mapping[str, object]) -> SweepConfig:
    """The sweep with another option in place of each group among `overrides`, as it was composed."""
    chosen: dict[str, Any] = {}
    for group in SWAPPABLE:
        if group not in overrides or overrides[group] == getattr(sweep, group).name:
            continue
        known, name = sweep.group_options.get(group, {}), overrides[group]
        if not isinstance(name, str):
            raise invalid(group, "be the name of an option", name)
        if name not in known:
            near = suggestion(name, sorted({*known, getattr(sweep, group).name}))
            raise ConfigError(f"{group} must be an option that the sweep was composed with, got {name!r}{near}")
        chosen[group] = copy.deepcopy(known[name])
    return dataclasses.replace(sweep, **chosen)
