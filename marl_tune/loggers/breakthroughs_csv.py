"""Breakthroughs in the driver's process: tells all callbacks of them, and writes breakthroughs.csv."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypedDict

from ray.tune.experiment import Trial

from marl_tune.results.callback import SweepCallback
from marl_tune.results.metrics import ROW, Result, events_of, iteration_of, row_of
from marl_tune.results.records import BreakthroughRecord
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import read_csv


class BreakthroughNews(SweepCallback):
    """Calls `on_breakthrough` of the other callbacks. It stands last, so that all of them know the result by then.

    Args:
        listeners: the other callbacks.
    """

    def __init__(self, listeners: Sequence[SweepCallback]) -> None:
        self._listeners = list(listeners)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Result, **info: object
    ) -> None:
        """Announces the breakthroughs that the result tells of."""
        for event in events_of(result):
            for listener in self._listeners:
                listener.on_breakthrough(trial_id=trial.trial_id, iteration=iteration_of(result), **event)


class BreakthroughsState(TypedDict):
    """State of `BreakthroughsCsv`, in JSON's types."""

    records: list[tuple[int, dict[str, Any]]]  # (number of the result in its trial, fields of `BreakthroughRecord`)


class BreakthroughsCsv(SweepCallback):
    """Writes breakthroughs.csv: one row for each breakthrough. It is written once a step of the sweep.

    A crash can undo results, whose rows are then removed from progress.csv. A breakthrough is kept only as long as the
    row of its result is there.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._rows: dict[str, int] = {}  # trial -> number of its newest result
        self._records: list[tuple[int, BreakthroughRecord]] = []  # with the number of the result
        self._changed = False  # since the file was written

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Result, **info: object
    ) -> None:
        """Remembers the number of the trial's newest result."""
        self._rows[trial.trial_id] = row_of(result)

    def on_breakthrough(
        self, trial_id: str, iteration: int, who: str, level: float, baseline: float, deviation: float
    ) -> None:
        """Adds a row, which the end of the step writes."""
        deviations = (level - baseline) / deviation if deviation > 0 else math.inf
        record = BreakthroughRecord(trial_id, iteration, who, level, baseline, deviations)
        self._records.append((self._rows[trial_id], record))
        self._changed = True

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Writes the file if there are new rows."""
        if self._changed:
            self._write()

    def on_experiment_end(self, trials: list[Trial], **info: object) -> None:
        """Writes the file a last time."""
        self._write()

    def get_state(self) -> BreakthroughsState:
        """Tune saves it together with the state of the trials."""
        return {"records": [(row, dataclasses.asdict(record)) for row, record in self._records]}

    def set_state(self, state: BreakthroughsState) -> None:
        """Continues from what `get_state` returned."""
        self._records = [(row, BreakthroughRecord(**fields)) for row, fields in state["records"]]
        self._changed = True

    def _write(self) -> None:
        standing = {(row["trial"], int(row[ROW])) for row in read_csv(self._folder.progress)} if self._records else ()
        self._records = [(row, record) for row, record in self._records if (record.trial, row) in standing]
        self._folder.write_breakthroughs([record for _, record in self._records])
        self._changed = False
