"""TensorBoard: event files in `tensorboard/<trial>/` of the run's folder.

Names and row numbers are those of progress.csv. Ray's own callback puts `ray/tune/` before every name and logs by
`training_iteration`, which jumps when population based training copies another trial.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from ray.tune.experiment import Trial
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from marl_tune.results.callback import SweepCallback, searched
from marl_tune.results.metrics import Result, flat_metrics, row_of
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import as_cell, as_json

FLUSH_S = 10  # seconds between two writes to the disk: a crash loses the rows since the last one


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

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_writers": {}}  # Tune pickles its callbacks; open files belong to this process

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Result, **info: object
    ) -> None:
        """Writes the result's finite numbers as scalars."""
        writer, row = self._writer(trial.trial_id), row_of(result)
        self._rows[trial.trial_id] = row
        for name, value in flat_metrics(result).items():
            if math.isfinite(value):
                writer.add_scalar(name, value, global_step=row)

    def on_exploit(
        self, trial_id: str, donor_id: str, iteration: int, old: Mapping[str, object], new: Mapping[str, object]
    ) -> None:
        """Writes the exploit as a text."""
        text = f"iteration {iteration}: copied from {donor_id}, then {as_json(old)} → {as_json(new)}"
        self._writer(trial_id).add_text("exploit", text, global_step=self._rows.get(trial_id, 0))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Closes the trial's file."""
        self._close(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Closes the trial's file."""
        self._close(trial)

    def on_experiment_end(self, trials: list[Trial], **info: object) -> None:
        """Closes the files of interrupted trials."""
        for trial in trials:
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


def _hparam(value: object) -> str | bool | int | float:
    """A setting in a type that the HPARAMS tab can show."""
    return value if isinstance(value, str | bool | int | float) else as_cell(value)
