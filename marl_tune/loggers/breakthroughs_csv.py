"""Breakthroughs in the driver: all callbacks are told of them, and breakthroughs.csv is written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from ray.tune.experiment import Trial

from marl_tune.results.callback import SweepCallback
from marl_tune.results.files import read_csv
from marl_tune.results.metrics import EVENTS, ROW
from marl_tune.results.records import BreakthroughRecord
from marl_tune.results.run_folder import RunFolder


class BreakthroughNews(SweepCallback):
    """Calls `on_breakthrough` of the others; stands last, so that all of them know the result.

    Args:
        listeners: the other callbacks.
    """

    def __init__(self, listeners: Sequence[SweepCallback]) -> None:
        self._listeners = list(listeners)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        for event in result.get(EVENTS, ()):
            for listener in self._listeners:
                listener.on_breakthrough(trial_id=trial.trial_id, iteration=int(result["training_iteration"]), **event)


class BreakthroughsCsv(SweepCallback):
    """Writes breakthroughs.csv: a row a breakthrough, once for all those of a step of the sweep.

    What happened in time that a crash has undone goes with its row of progress.csv: only rows that stand there count.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._rows: dict[str, int] = {}  # trial -> number of its newest result
        self._records: list[tuple[int, BreakthroughRecord]] = []  # with the number of the result
        self._changed = False  # since the file was written

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._rows[trial.trial_id] = result[ROW]

    def on_breakthrough(
        self, trial_id: str, iteration: int, who: str, level: float, baseline: float, deviation: float
    ) -> None:
        deviations = (level - baseline) / deviation if deviation > 0 else math.inf
        record = BreakthroughRecord(trial_id, iteration, who, level, baseline, deviations)
        self._records.append((self._rows[trial_id], record))
        self._changed = True

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self._changed:
            self._write()

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        self._write()

    def get_state(self) -> dict[str, Any]:
        """In JSON's types."""
        return {"records": [[row, dataclasses.asdict(record)] for row, record in self._records]}

    def set_state(self, state: dict[str, Any]) -> None:
        self._records = [(row, BreakthroughRecord(**record)) for row, record in state["records"]]
        self._changed = True

    def _write(self) -> None:
        standing = {(row["trial"], int(row[ROW])) for row in read_csv(self._folder.progress)} if self._records else ()
        self._records = [(row, record) for row, record in self._records if (record.trial, row) in standing]
        self._folder.write_breakthroughs([record for _, record in self._records])
        self._changed = False
