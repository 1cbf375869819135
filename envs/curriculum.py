"""A curriculum: easier versions of a world that agents are trained in before the world itself.

Here it is only said what the stages are; who trains in them, and when one is left, is the trainer's business.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

Settings = TypeVar("Settings")  # the config dataclass of a world
NEVER_STAGED = ("name", "curriculum", "workers")  # settings that no stage changes: the option, and a trial's processes


@dataclass
class CurriculumConfig:
    """Which stages come before the world as it is configured, and when one is left for the next.

    The idea: Bengio et al. 2009, https://doi.org/10.1145/1553374.1553380; by the number of agents, as here, Wang et
    al. 2020, https://arxiv.org/abs/1909.02790. What is null as shipped has its defaults here.
    """

    stages: list[dict[str, Any]]
    # what each stage changes of the world's own settings, the easiest stage first; the world itself follows the last
    threshold: float | list[float] = field(metadata={"live": True})
    # mean of `metric` from which on a stage is left for the next: one for all stages, or one for each
    episodes: int = field(metadata={"live": True})
    # newest finished episodes of the present stage that the mean is taken of, >= 1; with fewer, or while a copy of the
    # world has not ended its first episode in the stage, no stage is left
    metric: str = "return_mean_agent"
    # number of an iteration's result, as progress.csv names it, of which more is better
    fall_back: float | None = field(default=None, metadata={"live": True})
    # mean below which the stage before is entered again, below every threshold; null: never

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
    """What the settings of every world hold besides its own."""

    name: str
    # stem of the world
    curriculum: CurriculumConfig | None = field(default=None, kw_only=True, metadata={"structural": True})
    # stages that come before this world in training; null, as in runs saved before there were any: none


def curriculum_of(config: object) -> CurriculumConfig | None:
    """The curriculum of a world's settings, None where it has none."""
    return getattr(config, "curriculum", None)


def world_itself(config: Settings) -> Settings:
    """A world's settings without its curriculum. A simulation gets these."""
    return config if curriculum_of(config) is None else replace(config, curriculum=None)  # type: ignore[type-var]


def merged(own: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """`own` settings with `changes` over them; mappings (kwargs, preprocess) are merged key by key."""
    result = dict(own)
    for key, value in changes.items():
        before = own.get(key)
        result[key] = merged(before, value) if isinstance(value, Mapping) and isinstance(before, Mapping) else value
    return result
