"""The stage of its curriculum that a trial is in, and when it changes.

The stages are settings of the world: see `marl_tune.envs.curriculum.CurriculumConfig`. A stage is judged once an
iteration, because the world can only change between two iterations.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from marl_tune.config.errors import unknown
from marl_tune.envs.curriculum import CurriculumConfig, curriculum_of
from marl_tune.results.metrics import COPY, OF_THE_WORLD_ITSELF


@dataclass(frozen=True)
class StageChange:
    """A change from one stage to another."""

    left: int  # number of the stage that is left, from 0
    entered: int  # number of the stage after it, or before it
    level: float  # mean of the metric over the window
    limit: float  # the threshold that was reached, or the limit `fall_back` that was passed downwards


class CurriculumState(TypedDict):
    """What a checkpoint keeps of a curriculum."""

    stage: int
    values: list[float]
    ended: list[int]


class Curriculum:
    """The stage of one trial, and the newest episodes by which it is judged.

    Stages count from 0. The last, number `len(rules.stages)`, is the world itself. A stage is judged when its window is
    full and every copy of the world has ended an episode in it. The episodes that end first are the shortest, and in
    many worlds these are the successes.

    Args:
        rules: stages, metric, thresholds, window.
        copies: copies of the world that the trial samples.
    """

    def __init__(self, rules: CurriculumConfig, copies: int):
        self.rules, self.copies = rules, copies
        self.stage = 0
        self._values: deque[float] = deque(maxlen=rules.episodes)  # of the present stage, oldest first
        self._ended: set[int] = set()  # copies that have ended an episode in it

    def add(self, values: Iterable[float], copies: Iterable[int]) -> None:
        """Takes in the next finished episodes of the present stage: their metric, and the numbers of their copies."""
        self._values.extend(values)
        self._ended.update(copies)

    @property
    def mean(self) -> float:
        """Mean of the metric over the window, as far as it is filled; NaN before the first episode."""
        return math.fsum(self._values) / len(self._values) if self._values else math.nan

    def judge(self) -> StageChange | None:
        """Changes to the next stage, or back to the one before, where the mean of a full window requires it."""
        change = self._change()
        if change is not None:
            self.stage = change.entered
            self._values.clear()
            self._ended.clear()
        return change

    def _change(self) -> StageChange | None:
        rules, stage, mean = self.rules, self.stage, self.mean
        if len(self._values) < rules.episodes or len(self._ended) < self.copies:
            return None
        if stage < len(rules.stages) and mean >= rules.thresholds[stage]:
            return StageChange(stage, stage + 1, mean, rules.thresholds[stage])
        if stage > 0 and rules.fall_back is not None and mean < rules.fall_back:
            return StageChange(stage, stage - 1, mean, rules.fall_back)
        return None

    def numbers(self) -> dict[str, float]:
        """The numbers of a result: the stage, the stages left, the mean, and `progress`, the mean / the threshold.

        `progress` is left out before the first episode, in the last stage, and where the threshold is not above 0.
        """
        left = len(self.rules.stages) - self.stage
        numbers = {"stage": self.stage, "stages_left": left, "mean": self.mean}
        if left > 0 and self._values and self.rules.thresholds[self.stage] > 0:
            numbers["progress"] = self.mean / self.rules.thresholds[self.stage]
        return numbers

    def get_state(self) -> CurriculumState:
        """The stage and its episodes so far, for `set_state`."""
        return {"stage": self.stage, "values": list(self._values), "ended": sorted(self._ended)}

    def set_state(self, state: CurriculumState) -> None:
        """Continues from an earlier `get_state`, perhaps of another trial with other thresholds."""
        self.stage, self._ended = state["stage"], set(state["ended"])
        self._values.clear()
        self._values.extend(state["values"])


def saved_stage(env: object, state: CurriculumState | None) -> int:
    """The stage in which a trial continues from a checkpoint; 0 where it has no curriculum, or the checkpoint had none.

    Args:
        env: the trial's settings of its world.
        state: of the `Curriculum` in the checkpoint.
    """
    return 0 if curriculum_of(env) is None or state is None else int(state["stage"])


def values_of_episodes(
    metric: str, finished: Sequence[Mapping[str, np.ndarray]], numbers: Mapping[str, float]
) -> list[float]:
    """The metric of each episode that ended in an iteration, where it was measured.

    Args:
        metric: its name in a result.
        finished: for each env runner in turn: name -> (episodes,) values of the episodes, and `COPY`.
        numbers: the result. Where the metric is not measured for each episode (such as an entropy), its number in the
            result is taken for each episode that ended in the iteration.

    Raises:
        ConfigError: if episodes have ended and the result has no such number.
    """
    of_episodes = [runner[metric] for runner in finished if metric in runner]
    if of_episodes:
        values = np.concatenate(of_episodes)
        return values[np.isfinite(values)].tolist()
    ended = sum(len(runner[COPY]) for runner in finished)
    if metric in numbers:
        return [numbers[metric]] * ended if math.isfinite(numbers[metric]) else []
    if ended > 0 and not metric.startswith(OF_THE_WORLD_ITSELF):  # an evaluation is not made in every iteration
        measured = {*numbers, *(name for runner in finished for name in runner)}
        raise unknown("env.curriculum.metric", metric, measured - {COPY})
    return []
