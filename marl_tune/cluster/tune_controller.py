"""The patch of Tune's controller: the process of a trial that ends or pauses is kept while any trial waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray.tune import tune as tune_module
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

WAITING = (Trial.PENDING, Trial.PAUSED)  # states of a trial that may be run next


class KeepingController(TuneController):
    """Tune's controller, but two trials that pause at once both leave their processes to waiting trials.

    With `reuse_actors`, Tune keeps as many free processes as there are trials that it has chosen to run next. That is
    one. When two trials of a population pause within the same second, one of the two processes is ended, and the next
    trial needs a new one. Here every waiting trial counts as chosen.
    """

    _staged_trials: set[Trial]

    def _maybe_cache_trial_actor(self, trial: Trial) -> bool:
        with self._all_waiting_chosen():
            return super()._maybe_cache_trial_actor(trial)

    def _cleanup_cached_actors(self, force_all: bool = False) -> None:
        if not self._actor_cache.num_cached_objects:
            return
        with self._all_waiting_chosen():
            super()._cleanup_cached_actors(force_all)

    @contextmanager
    def _all_waiting_chosen(self) -> Iterator[None]:
        chosen = self._staged_trials
        others = [trial for trial in self._live_trials if trial.status in WAITING and trial not in chosen]
        for trial in others:
            self._actor_cache.increase_max(trial.placement_group_factory)
        self._staged_trials = chosen.union(others)
        try:
            yield
        finally:
            self._staged_trials = chosen
            for trial in others:
                self._actor_cache.decrease_max(trial.placement_group_factory)


@contextmanager
def keeping_processes() -> Iterator[None]:
    """`tune.run` makes a `KeepingController` meanwhile: put it around that call.

    Reason: see `KeepingController`. `tune.run` has no argument for the class of its controller, so the name is replaced
        in its module.
    Gain: 5.3 s of the processor's time for each process that is kept. How often that happens is chance; the gain over a
        whole sweep is not settled (docs/decisions/startup_and_ray.md).
    Test: `test_tune_gives_up_a_process_that_a_trial_waits_for`.
    """
    tune_module.TuneController = KeepingController
    try:
        yield
    finally:
        tune_module.TuneController = TuneController
