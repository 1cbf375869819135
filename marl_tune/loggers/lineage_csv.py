"""lineage.csv: which trial of a population copied which other, and what it changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from marl_tune.results.callback import SweepCallback
from marl_tune.results.records import LineageRecord
from marl_tune.results.run_folder import RunFolder


class LineageState(TypedDict):
    """State of `LineageCsv`."""

    exploits: int  # rows of lineage.csv


class LineageCsv(SweepCallback):
    """Writes lineage.csv: one row for each exploit. Exploits that a crash has undone are removed again.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._records: list[LineageRecord] = []

    def on_exploit(
        self, trial_id: str, donor_id: str, iteration: int, old: Mapping[str, object], new: Mapping[str, object]
    ) -> None:
        """Adds a row."""
        self._records.append(LineageRecord(iteration, donor_id, trial_id, dict(old), dict(new)))
        self._folder.write_lineage(self._records)

    def get_state(self) -> LineageState:
        """Tune saves it together with the state of the trials."""
        return {"exploits": len(self._records)}

    def set_state(self, state: LineageState) -> None:
        """Goes back to what `get_state` returned: removes the later rows from the file."""
        self._records = self._folder.read_lineage()[: state["exploits"]]
        if self._records or self._folder.lineage.exists():
            self._folder.write_lineage(self._records)
