"""The worlds of a curriculum's stages, and what they must have in common. Needs neither torch nor ray."""

from __future__ import annotations

import dataclasses
from typing import Any

from marl_tune.config.convert import build
from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.curriculum import curriculum_of, merged, world_itself


def stage_worlds(env: Any) -> list[Any]:
    """The settings of the world in each stage, the world itself last; of one without a curriculum, that alone.

    What a stage sets itself wins over the world's own settings, whether these come from a file, the command line or a
    search. Messages name the stage's key, env.curriculum.stages[0].grid_size.
    """
    curriculum, itself = curriculum_of(env), world_itself(env)
    changes = [] if curriculum is None else curriculum.stages
    return [*(_stage_world(itself, one, stage_key(number)) for number, one in enumerate(changes)), itself]


def stage_sweeps(sweep: SweepConfig) -> list[SweepConfig]:
    """The sweep in each stage of its curriculum, as one without a curriculum; the last is in the world itself."""
    return [dataclasses.replace(sweep, env=world) for world in stage_worlds(sweep.env)]


def stage_key(number: int) -> str:
    """The dotted key of a stage."""
    return f"env.curriculum.stages[{number}]"


def _stage_world(itself: Any, changes: dict[str, Any], key: str) -> Any:
    own = {name: value for name, value in dataclasses.asdict(itself).items() if name != "curriculum"}
    try:
        return build(type(itself), merged(own, changes), key)
    except ConfigError as error:
        raise of_stage(error, key) from error


def of_stage(error: ConfigError, key: str) -> ConfigError:
    """The error with the stage in front, unless it names it already."""
    return error if key in str(error) else ConfigError(f"{key}: {error}")
