"""A callback that keeps the best result of a sweep in a file of the run's folder."""

import json
import math
from typing import Any

from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.results.callback import SweepCallback
from marl_tune.results.metrics import flat_metrics
from marl_tune.results.run_folder import RunFolder


class BestSoFar(SweepCallback):
    """Writes best_so_far.json whenever a trial reports a better value of `search.metric`.

    A callback is built with the sweep's settings and the run's folder, and lives in the process of the command.
    """

    def __init__(self, sweep: SweepConfig, folder: RunFolder) -> None:
        self._search, self._file = sweep.search, folder.path / "best_so_far.json"
        self._best = -math.inf

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """Called by Tune after each iteration of each trial."""
        value = flat_metrics(result).get(self._search.metric, math.nan)
        score = value if self._search.mode == "max" else -value
        if score > self._best:  # false for NaN
            self._best = score
            self._file.write_text(json.dumps({"trial": trial.trial_id, self._search.metric: value}))
