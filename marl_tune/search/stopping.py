"""When a trial ends: the settings `stop` as a stopper of Tune."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, TypedDict, cast

from ray.tune import Stopper

from marl_tune.config.schema.sweep import PlateauConfig, StopConfig
from marl_tune.results.metrics import flat_metrics, is_in_last_stage, ranking_stage


class StopperState(TypedDict):
    """What a later session needs to know of a stopper, in types of JSON."""

    seconds: float  # that the sweep has run so far
    best: dict[str, tuple[float, int]]  # trial -> (best score so far, iteration in which it was reached)
    stages: dict[str, int]  # trial -> stage of its curriculum in which this score was reached


class SweepStopper(Stopper):
    """Stops a trial at the first limit that it reaches, and the whole sweep after `stop.wall_time_s`.

    `target` counts in the last stage of a curriculum only. A new stage begins a new plateau.

    >>> limits = StopConfig(iterations=100, agent_steps=None, wall_time_s=None, target=0.5, plateau=None)
    >>> is_last = SweepStopper(limits, metric="return_mean_agent", mode="max")
    >>> is_last("trial_0", {"training_iteration": 1, "return_mean_agent": 0.2})
    False
    >>> is_last("trial_0", {"training_iteration": 2, "return_mean_agent": 0.6})
    True

    Args:
        stop: the limits.
        metric: name of the result that `target` and `plateau` are about.
        mode: max (more is better) or min.
    """

    def __init__(self, stop: StopConfig, metric: str, mode: str) -> None:
        self.stop, self.metric = stop, metric
        self._sign = 1.0 if mode == "max" else -1.0
        self._began = time.monotonic()
        self._best: dict[str, tuple[float, int]] = {}  # trial -> (best score so far, iteration in which it was reached)
        self._stages: dict[str, int] = {}  # trial -> stage of its curriculum in which this score was reached

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether this result is the last of its trial."""
        stop, iteration = self.stop, result["training_iteration"]
        if stop.iterations is not None and iteration >= stop.iterations:
            return True
        if stop.agent_steps is not None and result["agent_steps"] >= stop.agent_steps:
            return True
        numbers = flat_metrics(result)
        score = self._sign * numbers.get(self.metric, math.nan)
        if math.isnan(score):  # no episode has ended yet, or this metric is not in every result
            return False
        if stop.target is not None and score >= self._sign * stop.target and is_in_last_stage(numbers, self.metric):
            return True
        stage = ranking_stage(numbers, self.metric)
        if stage != self._stages.get(trial_id, 0):
            self._best.pop(trial_id, None)
        self._stages[trial_id] = stage
        return stop.plateau is not None and self._on_plateau(stop.plateau, trial_id, score, iteration)

    def _on_plateau(self, plateau: PlateauConfig, trial_id: str, score: float, iteration: int) -> bool:
        best, reached = self._best.get(trial_id, (-math.inf, iteration))
        if score > best + plateau.min_delta:
            self._best[trial_id] = (score, iteration)
            return False
        if iteration < reached:  # a PBT clone of a younger trial: count from its present iteration
            self._best[trial_id] = (best, iteration)
            return False
        return iteration > plateau.grace and iteration - reached >= plateau.patience

    def stop_all(self) -> bool:
        """Whether the sweep has used up its wall-clock time."""
        return self.stop.wall_time_s is not None and self._seconds() >= self.stop.wall_time_s

    def _seconds(self) -> float:
        """Seconds that the sweep has run, earlier sessions included."""
        return time.monotonic() - self._began

    # -- several sessions. The clock starts anew in another process, so the time that has passed is saved.

    def get_state(self) -> StopperState:
        """What a later session needs to know."""
        return {"seconds": self._seconds(), "best": self._best, "stages": self._stages}

    def set_state(self, state: StopperState) -> None:
        """Continues from what `get_state` returned in an earlier session; JSON may have made lists of its tuples."""
        self._began = time.monotonic() - state["seconds"]
        self._best = {trial: (score, reached) for trial, (score, reached) in state["best"].items()}
        self._stages = dict(state.get("stages", {}))

    def __getstate__(self) -> dict[str, Any]:  # attributes of any type
        return {**vars(self), **self.get_state()}  # Tune pickles it with its own state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.stop, self.metric, self._sign = state["stop"], state["metric"], state["_sign"]
        self.set_state(cast(StopperState, state))
