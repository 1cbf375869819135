"""When trials end: `stop` as a Tune stopper."""

from __future__ import annotations

import math
import time
from typing import Any

from ray.tune import Stopper

from marl_tune.config.schema.sweep import PlateauConfig, StopConfig
from marl_tune.results.metrics import flat_metrics, is_in_last_stage, ranking_stage


class SweepStopper(Stopper):
    """Stops a trial at the first of its limits, and the whole sweep at the end of its time.

    A score reached in an early stage of a curriculum is no target, and a new stage begins a plateau anew.

    Args:
        stop: the limits.
        metric: the result that `target` and `plateau` speak of.
        mode: max or min.
    """

    def __init__(self, stop: StopConfig, metric: str, mode: str):
        self.stop, self.metric = stop, metric
        self._sign = 1.0 if mode == "max" else -1.0
        self._began = time.monotonic()
        self._best: dict[str, tuple[float, int]] = {}  # trial -> (best score so far, iteration at which it was reached)
        self._stages: dict[str, int] = {}  # trial -> stage of its curriculum that this score is of

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this result was the trial's last."""
        stop, iteration = self.stop, result["training_iteration"]
        if stop.iterations is not None and iteration >= stop.iterations:
            return True
        if stop.agent_steps is not None and result["agent_steps"] >= stop.agent_steps:
            return True
        numbers = flat_metrics(result)
        score = self._sign * numbers.get(self.metric, math.nan)
        if math.isnan(score):  # no episode has ended yet, or it is measured only now and then
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
        if iteration < reached:  # a PBT clone of a younger trial counts from where it is now
            self._best[trial_id] = (best, iteration)
            return False
        return iteration > plateau.grace and iteration - reached >= plateau.patience

    def stop_all(self) -> bool:
        """Whether the sweep's time is over."""
        return self.stop.wall_time_s is not None and self._seconds() >= self.stop.wall_time_s

    def _seconds(self) -> float:
        """Time that the sweep has run, earlier sessions included."""
        return time.monotonic() - self._began

    # -- over several sessions: the clock's reading says nothing in another process, the time that has passed does

    def get_state(self) -> dict[str, Any]:
        """What a later session has to know, in JSON's types."""
        return {"seconds": self._seconds(), "best": self._best, "stages": self._stages}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from an earlier session's `get_state`."""
        self._began = time.monotonic() - state["seconds"]
        self._best = {trial: (score, reached) for trial, (score, reached) in state["best"].items()}
        self._stages = dict(state.get("stages", {}))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), **self.get_state()}  # Tune pickles it with its own state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.stop, self.metric, self._sign = state["stop"], state["metric"], state["_sign"]
        self.set_state(state)
