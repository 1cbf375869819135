"""Self-play in the driver: self_play.json has every trial's players, ratings and win rates."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial

from marl_tune.results.callback import SweepCallback
from marl_tune.results.files import read_json, write_json
from marl_tune.results.metrics import table_of
from marl_tune.results.run_folder import RunFolder


class SelfPlayJson(SweepCallback):
    """Writes self_play.json: trial -> `Pool.table` of its newest result, once for all results of a step of the sweep.

    A run that goes on begins with what the file holds; what a crash has undone is replaced by the next result.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.self_play
        self._tables: dict[str, Any] = read_json(self._path) or {}
        self._changed = False  # since the file was written

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        table = table_of(result)
        if table is not None:
            self._tables[trial.trial_id] = {"iteration": int(result["training_iteration"]), **table}
            self._changed = True

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self._changed:
            write_json(self._path, self._tables)
            self._changed = False

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        self.on_step_end(0, trials)
