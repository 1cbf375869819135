"""The environments of a curriculum's stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from marl_tune.config.convert import build
from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.curriculum import curriculum_of, merged, world_itself


def stage_worlds(env: Any) -> list[Any]:
    """The settings of the world in each stage. The last is the world itself; without a curriculum, it is the only one.

    A setting of a stage replaces the world's own one, wherever that comes from: a file, the command line or a search.

    Args:
        env: the settings of the world: a dataclass of envs/.

    Raises:
        ConfigError: a setting of a stage is wrong; the message names its key, env.curriculum.stages[0].grid_size.
    """
    curriculum, itself = curriculum_of(env), world_itself(env)
    changes = [] if curriculum is None else curriculum.stages
    return [*(_stage_world(itself, one, stage_key(number)) for number, one in enumerate(changes)), itself]


def stage_sweeps(sweep: SweepConfig) -> list[SweepConfig]:
    """The sweep in each stage, without a curriculum. The last one is in the world itself."""
    return [dataclasses.replace(sweep, env=world) for world in stage_worlds(sweep.env)]


def stage_key(number: int) -> str:
    """The dotted key of a stage."""
    return f"env.curriculum.stages[{number}]"


def _stage_world(itself: Any, changes: Mapping[str, object], key: str) -> Any:
    """The settings of the world with those of one stage."""
    own = {name: value for name, value in dataclasses.asdict(itself).items() if name != "curriculum"}
    try:
        return build(type(itself), merged(own, changes), key)
    except ConfigError as error:
        raise of_stage(error, key) from error


def of_stage(error: ConfigError, key: str) -> ConfigError:
    """The error with the key of the stage in front, unless the message has it already."""
    return error if key in str(error) else ConfigError(f"{key}: {error}")
