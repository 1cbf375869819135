"""A curriculum: easier versions of a world, in which agents are trained before the world itself.

This file defines the settings only. `marl_tune.trial.curriculum` changes the stages during training.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

Settings = TypeVar("Settings")  # the config dataclass of a world
NEVER_STAGED = ("name", "curriculum", "workers")  # settings that no stage may change


@dataclass
class CurriculumConfig:
    """The stages that come before the world itself, and when the next stage begins.

    Curriculum learning: Bengio et al. 2009, https://doi.org/10.1145/1553374.1553380. With a growing number of agents:
    Wang et al. 2020, https://arxiv.org/abs/1909.02790. `conf/env/` has `curriculum: null`; so the defaults of some
    fields are here.
    """

    stages: list[dict[str, Any]]
    # settings that each stage changes, the easiest stage first; after the last one comes the world itself
    threshold: float | list[float] = field(metadata={"live": True})
    # the next stage begins when the mean of `metric` reaches this: one number for all stages, or one for each
    episodes: int = field(metadata={"live": True})
    # the mean is over so many latest episodes of the present stage, >= 1. The stage does not change before there are so
    # many, and before each copy has finished one episode in it
    metric: str = "return_mean_agent"
    # name of a metric, as in progress.csv; a higher value must be better
    fall_back: float | None = field(default=None, metadata={"live": True})
    # below this mean the previous stage begins again; must be below every threshold; null: never

    def __post_init__(self) -> None:
        self._check_stages()
        if not re.fullmatch(r"[^\s/]+(/[^\s/]+)*", self.metric) or self.metric.startswith("curriculum/"):
            raise ValueError(f"env.curriculum.metric must be a result's name, not its own, got {self.metric!r}")
        if self.episodes < 1:
            raise ValueError(f"env.curriculum.episodes must be at least 1, got {self.episodes}")
        if isinstance(self.threshold, list) and len(self.threshold) != len(self.stages):
            rule = f"be one number, or one for each of the {len(self.stages)} stages before the world itself"
            raise ValueError(f"env.curriculum.threshold must {rule}, got {self.threshold}")
        if not all(math.isfinite(threshold) for threshold in self.thresholds):
            raise ValueError(f"env.curriculum.threshold must be finite, got {self.threshold}")
        if self.fall_back is not None and not -math.inf < self.fall_back < min(self.thresholds):
            rule = f"be below every env.curriculum.threshold ({min(self.thresholds)}), or stages would alternate"
            raise ValueError(f"env.curriculum.fall_back must {rule}, got {self.fall_back}")

    def _check_stages(self) -> None:
        if not self.stages:
            raise ValueError("env.curriculum.stages must hold at least one stage, got []")
        for number, changes in enumerate(self.stages):
            if not changes:
                raise ValueError(f"env.curriculum.stages[{number}] must change at least one setting, got {{}}")
            for key in NEVER_STAGED:
                if key in changes:
                    rule = "be left out: it is the same in all stages"
                    raise ValueError(f"env.curriculum.stages[{number}].{key} must {rule}, got {changes[key]!r}")

    @property
    def thresholds(self) -> list[float]:
        """The threshold of each stage."""
        return self.threshold if isinstance(self.threshold, list) else [self.threshold] * len(self.stages)


@dataclass
class WorldConfig:
    """Base of the settings of every world."""

    name: str
    # name of the world in the registry
    curriculum: CurriculumConfig | None = field(default=None, kw_only=True, metadata={"structural": True})
    # stages that come before this world in training; null: none


def curriculum_of(config: object) -> CurriculumConfig | None:
    """The curriculum in a world's settings, or None."""
    return getattr(config, "curriculum", None)


def world_itself(config: Settings) -> Settings:
    """A world's settings without its curriculum. A simulation gets these."""
    return config if curriculum_of(config) is None else replace(config, curriculum=None)  # type: ignore[type-var]


def merged(own: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """The settings `own` with `changes` applied. Mappings (kwargs, preprocess) are merged key by key."""
    result = dict(own)
    for key, value in changes.items():
        before = own.get(key)
        result[key] = merged(before, value) if isinstance(value, Mapping) and isinstance(before, Mapping) else value
    return result
