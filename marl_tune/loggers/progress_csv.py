"""progress.csv: all results of all trials. The callback that writes it also numbers the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from ray.tune.experiment import Trial

from marl_tune.results.callback import SweepCallback
from marl_tune.results.metrics import AGENT_STEPS, ENV_STEPS, ITERATION, ROW, Result, flat_metrics
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import csv_text, read_csv, write_text

FIRST_COLUMNS = ("trial", ROW, ITERATION, ENV_STEPS, AGENT_STEPS)


@dataclass
class _Timeline:
    """Where one trial stands in progress.csv."""

    row: int = 0  # highest number that one of its rows has ever had
    newest: int = 0  # number of its newest valid row
    iteration: int = 0  # iteration of that row
    origin: int = 0  # number of its last row before its last exploit; iterations grow without a jump after it
    exploited_at: int | None = None  # iteration at which it was overwritten, until the result of it is announced


class ProgressState(TypedDict):
    """State of `ProgressCsv`."""

    timelines: dict[str, dict[str, Any]]  # trial -> fields of its `_Timeline`


class ProgressCsv(SweepCallback):
    """Writes progress.csv: one row for each result, one column for each metric. It must be the first callback.

    `row` numbers the results of a trial: 1, 2, 3, … It always grows, whereas `iteration` jumps when population based
    training copies another trial. The number is put into the result, so that all later callbacks use the same one.

    A trial that is restored after a crash repeats iterations. The rows of the lost iterations are removed, so that no
    iteration is there twice. Their numbers are not used again, because W&B and TensorBoard cannot remove a row.

    A result is one short append. The whole file is written again only when a new metric appears or rows are removed.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.progress
        self._timelines: dict[str, _Timeline] = {}
        self._columns: list[str] | None = None  # None: the file was not read yet

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Result, **info: object
    ) -> None:
        """Numbers the result and adds its row."""
        self._read_once()
        line = self._timelines.setdefault(trial.trial_id, _Timeline())
        metrics = flat_metrics(result)
        reached = int(metrics[ITERATION])
        if line.exploited_at not in (None, reached):  # this is already a result of the copy
            line.origin, line.exploited_at = line.newest, None
        if line.row > line.newest or (line.newest > line.origin and reached <= line.iteration):
            self._remove(trial.trial_id, line.newest, line.origin, reached)
        line.row += 1
        line.newest, line.iteration = line.row, reached
        if line.exploited_at is not None:
            line.origin, line.exploited_at = line.row, None
        result[ROW] = line.row
        self._append({"trial": trial.trial_id, ROW: line.row, **metrics})

    def on_exploit(
        self, trial_id: str, donor_id: str, iteration: int, old: Mapping[str, object], new: Mapping[str, object]
    ) -> None:
        """Notes that the iterations of the trial jump from here on."""
        line = self._timelines.setdefault(trial_id, _Timeline())
        if line.newest > line.origin and line.iteration == iteration:
            line.origin = line.newest
        else:
            line.exploited_at = iteration

    def on_experiment_end(self, trials: list[Trial], **info: object) -> None:
        """Removes rows of lost iterations that no trial has repeated."""
        self._read_once()
        for trial_id, line in self._timelines.items():
            if line.row > line.newest:
                self._remove(trial_id, line.newest, line.newest, 0)

    def get_state(self) -> ProgressState:
        """Tune saves it together with the state of the trials, so that both are of the same moment."""
        return {"timelines": {trial: dict(vars(line)) for trial, line in self._timelines.items()}}

    def set_state(self, state: ProgressState) -> None:
        """Continues from what `get_state` returned."""
        self._timelines = {trial: _Timeline(**line) for trial, line in state["timelines"].items()}
        self._columns = None

    def _read_once(self) -> None:
        """Reads the file that an earlier session wrote. It may hold later rows than the saved state knows of."""
        if self._columns is not None:
            return
        rows = read_csv(self._path)
        self._columns = list(rows[0]) if rows else list(FIRST_COLUMNS)
        self._write(rows)  # cuts off a line that the crash left half-written
        for row in rows:
            line = self._timelines.setdefault(row["trial"], _Timeline())
            line.row = max(line.row, int(row[ROW]))

    def _remove(self, trial_id: str, newest: int, origin: int, reached: int) -> None:
        """Removes a trial's rows after `newest`, and those after `origin` whose iteration is `reached` or later."""
        self._write(
            row
            for row in read_csv(self._path)
            if row["trial"] != trial_id
            or (int(row[ROW]) <= newest and (int(row[ROW]) <= origin or int(row[ITERATION]) < reached))
        )

    def _append(self, row: Mapping[str, object]) -> None:
        assert self._columns is not None
        new = [name for name in row if name not in self._columns]
        if new:
            rows = read_csv(self._path)
            self._columns += new
            self._write(rows)
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(csv_text(self._columns, [row], header=False))

    def _write(self, rows: Iterable[Mapping[str, object]]) -> None:
        assert self._columns is not None
        write_text(self._path, csv_text(self._columns, rows))
