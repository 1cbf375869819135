"""The interface of everything that listens to a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ray.tune import Callback
from ray.tune.experiment import Trial


class SweepCallback(Callback):
    """A Tune callback that also hears of exploits and breakthroughs, which Tune itself does not announce.

    Tune calls all callbacks of a sweep in the driver's process, in the order of the list that it was given.
    """

    def on_exploit(
        self, trial_id: str, donor_id: str, iteration: int, old: Mapping[str, object], new: Mapping[str, object]
    ) -> None:
        """Called by the scheduler when `trial_id` is overwritten with a copy of `donor_id`.

        Args:
            trial_id: the trial that is overwritten.
            donor_id: the trial that is copied.
            iteration: training iteration of the newest result of `trial_id`. `on_trial_result` may not have announced
                this result yet, because Tune asks the scheduler first.
            old: dotted key -> value of `trial_id` before the exploit.
            new: dotted key -> value of `trial_id` from now on.
        """

    def on_breakthrough(
        self, trial_id: str, iteration: int, who: str, level: float, baseline: float, deviation: float
    ) -> None:
        """Called when a return of `trial_id` rises further than chance explains; see `marl_tune.trial.breakthroughs`.

        All callbacks have received the result by then. A trial that is restored after a crash may report the same
        breakthrough again.

        Args:
            trial_id: the trial.
            iteration: training iteration of the result.
            who: "team", or the agent's id.
            level: mean return of the newest window of episodes.
            baseline: mean return of the episodes before that window.
            deviation: standard deviation of the difference of the two.
        """


def searched(trial: Trial, keys: Sequence[str]) -> dict[str, object]:
    """Dotted key -> value, of those of the searched `keys` that `trial` sets."""
    return {key: trial.config[key] for key in keys if key in trial.config}


def error_line(trial: Trial) -> str | None:
    """The last line of the error that stopped `trial`, such as "ValueError: …"; None if it has not failed."""
    try:
        text = str(trial.get_error() or "")
    except OSError:  # the trial's folder is on a machine that is gone
        return "its error file cannot be read"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else None
