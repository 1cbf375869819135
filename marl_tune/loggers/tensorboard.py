"""TensorBoard: event files in `tensorboard/<trial>/` of the run's folder, with progress.csv's names and row numbers.

(Ray's own callback puts `ray/tune/` before every name and logs by `training_iteration`, which jumps back when
population based training copies another trial.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.experiment import Trial
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from marl_tune.results.callback import SweepCallback, searched
from marl_tune.results.files import as_cell, as_json
from marl_tune.results.metrics import ROW, flat_metrics
from marl_tune.results.run_folder import RunFolder

FLUSH_S = 10  # seconds of rows that a crash may cost


class TensorboardCallback(SweepCallback):
    """Writes results as scalars, exploits as text, and, when a trial ends, its searched values for the HPARAMS tab.

    Args:
        folder: the run's folder.
        keys: the searched dotted keys.
        metric: name of the metric that ranks the trials, as in progress.csv.
    """

    def __init__(self, folder: RunFolder, keys: Sequence[str], metric: str) -> None:
        self._folder = folder
        self._keys = list(keys)
        self._metric = metric
        self._writers: dict[str, SummaryWriter] = {}
        self._rows: dict[str, int] = {}  # trial -> number of its newest row

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_writers": {}}  # Tune pickles its callbacks; open files belong to this process

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        writer = self._writer(trial.trial_id)
        self._rows[trial.trial_id] = result[ROW]
        for name, value in flat_metrics(result).items():
            if math.isfinite(value):
                writer.add_scalar(name, value, global_step=result[ROW])

    def on_exploit(
        self, trial_id: str, donor_id: str, iteration: int, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> None:
        text = f"iteration {iteration}: copied from {donor_id}, then {as_json(old)} → {as_json(new)}"
        self._writer(trial_id).add_text("exploit", text, global_step=self._rows.get(trial_id, 0))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._close(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._close(trial)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        for trial in trials:  # those that were interrupted
            self._close(trial)

    def _writer(self, trial_id: str) -> SummaryWriter:
        if trial_id not in self._writers:
            place = str(self._folder.tensorboard / trial_id)
            suffix = f".{time.time_ns()}"  # the name's own time is in seconds: a second session could replace the file
            self._writers[trial_id] = SummaryWriter(place, flush_secs=FLUSH_S, filename_suffix=suffix)
        return self._writers[trial_id]

    def _close(self, trial: Trial) -> None:
        writer = self._writers.pop(trial.trial_id, None)
        if writer is None:
            return
        score = flat_metrics(trial.last_result).get(self._metric, math.nan)
        values = {key: _hparam(value) for key, value in searched(trial, self._keys).items()}
        if values and math.isfinite(score):
            for summary in hparams(hparam_dict=values, metric_dict={self._metric: score}):
                writer.file_writer.add_summary(summary)
        writer.close()


def _hparam(value: Any) -> str | bool | int | float:
    """A setting as the HPARAMS tab can hold it."""
    return value if isinstance(value, str | bool | int | float) else as_cell(value)
