"""The interface of everything that listens to a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial


class SweepCallback(Callback):
    """A Tune callback that also hears of exploits and breakthroughs, which Tune itself does not announce."""

    def on_exploit(
        self, trial_id: str, donor_id: str, iteration: int, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> None:
        """Called by the scheduler when `trial_id` is overwritten with a copy of `donor_id`.

        Args:
            iteration: training iteration of the newest result of `trial_id`. It may not have been announced by
                `on_trial_result` yet: Tune asks the scheduler first.
            old, new: dotted key -> value of `trial_id` before, and from now on.
        """

    def on_breakthrough(
        self, trial_id: str, iteration: int, who: str, level: float, baseline: float, deviation: float
    ) -> None:
        """Called when a return of `trial_id` rises further than chance explains; see `marl_tune.trial.breakthroughs`.

        All callbacks have heard of the result by then. A trial that is restored after a crash may tell of it again.

        Args:
            who: team, or the agent's id.
            level, baseline: mean return of the newest window of episodes, and of those before it.
            deviation: standard deviation of that difference.
        """


def searched(trial: Trial, keys: Sequence[str]) -> dict[str, Any]:
    """The values that `trial` has of the searched dotted `keys`."""
    return {key: trial.config[key] for key in keys if key in trial.config}


def error_line(trial: Trial) -> str | None:
    """The last line of the error that stopped `trial`, such as "ValueError: …"; None when it has not failed."""
    try:
        text = str(trial.get_error() or "")
    except OSError:  # the trial's folder is on a machine that is gone
        return "its error file cannot be read"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else None
