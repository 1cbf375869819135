"""self_play.json: the players of every trial's pool, their ratings and win rates."""

from __future__ import annotations

from ray.tune.experiment import Trial

from marl_tune.results.callback import SweepCallback
from marl_tune.results.json_records import SelfPlayEntry
from marl_tune.results.metrics import Result, iteration_of, table_of
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import read_json, write_json


class SelfPlayJson(SweepCallback):
    """Writes self_play.json: trial -> `Pool.table` of its newest result. It is written once a step of the sweep.

    A resumed run starts from what the file holds. The next result of a trial replaces what a crash has undone.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.self_play
        self._tables: dict[str, SelfPlayEntry] = read_json(self._path) or {}
        self._changed = False  # since the file was written

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Result, **info: object
    ) -> None:
        """Keeps the table of the result."""
        table = table_of(result)
        if table is not None:
            self._tables[trial.trial_id] = {"iteration": iteration_of(result), **table}
            self._changed = True

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Writes the file if a table has changed."""
        if self._changed:
            write_json(self._path, self._tables)
            self._changed = False

    def on_experiment_end(self, trials: list[Trial], **info: object) -> None:
        """Writes the file a last time."""
        self.on_step_end(0, trials)
