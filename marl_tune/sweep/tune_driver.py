"""Gives the trials of a sweep to Tune, which trains several at once, each in its own process."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Sequence
from operator import attrgetter

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.tune import ResumeConfig
from ray.tune.utils.serialization import _loads_with_cloudpickle

from marl_tune.cluster import startup_patches
from marl_tune.cluster.tune_controller import keeping_processes
from marl_tune.config import convert
from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.search import PopulationConfig
from marl_tune.config.schema.self_play import has_opponents
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.search_space import parse
from marl_tune.config.trial_resources import own_cpus, runner_cpus
from marl_tune.results.callback import SweepCallback
from marl_tune.results.run_folder import TUNE_STATE, RunFolder
from marl_tune.search.searches import SearchPlan, plan, seed_everything
from marl_tune.search.stopping import SweepStopper
from marl_tune.trial.checkpoint import retention
from marl_tune.trial.trial import Trial


def train(sweep: SweepConfig, run: RunFolder, callbacks: Sequence[SweepCallback]) -> tuple[list[TuneTrial], bool]:
    """Trains until all trials have ended or the user interrupts.

    Returns:
        The trials, and whether a signal ended it.
    """
    if run.begun_by_tune:
        _check_state(run)
    seed_everything(sweep.seed)
    parts = plan(sweep, parse(sweep.space), run.path)
    if hasattr(parts.scheduler, "listeners"):
        parts.scheduler.listeners.extend(callbacks)
    with startup_patches.ready_processes(), keeping_processes(), _Interrupts() as interrupts:
        analysis = _run(sweep, run, parts, list(callbacks))
    return list(analysis.trials), interrupts.happened


def _check_state(run: RunFolder) -> None:
    """Refuses a state that Tune cannot read: Tune would start a new run without any message."""
    newest = max(run.tune.glob(TUNE_STATE))
    try:
        for trial in _loads_with_cloudpickle(newest.read_text())["trial_data"]:
            for part in trial:
                _loads_with_cloudpickle(part)
    except Exception as error:
        reason = "".join(traceback.format_exception_only(error)).strip()
        raise ConfigError(
            f"resume must be a run that this version can read, got {str(run.path)!r}, where {newest.name} needs "
            f"another one: {reason}"
        ) from error


class _Interrupts:
    """Detects whether Tune ended because of a signal. SIGTERM, which clusters send, is treated as SIGINT.

    At the first SIGINT Tune ends its loop, saves its state and restores the signal handler that it found, which it does
    in no other case. There is no other sign of an interruption: Tune marks every running trial as terminated.
    """

    happened = False

    def __enter__(self) -> _Interrupts:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._found = signal.getsignal(signal.SIGINT)
            self._found_term = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            self.happened = signal.getsignal(signal.SIGINT) is self._found
            signal.signal(signal.SIGINT, self._found)
            signal.signal(signal.SIGTERM, self._found_term)


def _run(
    sweep: SweepConfig, run: RunFolder, parts: SearchPlan, callbacks: list[SweepCallback]
) -> tune.ExperimentAnalysis:
    pool = str(run.pool) if shares_pool(sweep) else None
    bound = tune.with_parameters(Trial, sweep=convert.to_dict(sweep), pool=pool)
    trainable = tune.with_resources(bound, placement(sweep))
    return tune.run(
        trainable,
        name=run.tune.name,
        storage_path=str(run.path),
        config=parts.param_space,
        num_samples=sweep.search.num_samples,
        search_alg=parts.algorithm,
        scheduler=parts.scheduler,
        stop=SweepStopper(sweep.stop, sweep.search.metric, sweep.search.mode),
        checkpoint_config=retention(sweep.checkpoint),
        max_failures=sweep.cluster.max_failures,
        reuse_actors=True,
        raise_on_failed_trial=False,
        callbacks=callbacks,
        verbose=0,
        resume_config=ResumeConfig(errored=ResumeConfig.ResumeType.RESUME) if run.begun_by_tune else None,
        resume=run.begun_by_tune,
        # The default puts every searched value into the name, beyond what a file system takes. (No function of ours:
        # Tune pickles it, and a run could then not be resumed when our modules have changed.)
        trial_dirname_creator=attrgetter("trial_id"),
    )


def shares_pool(sweep: SweepConfig) -> bool:
    """Whether trials play against each other's frozen copies: a population under self-play does."""
    return has_opponents(sweep) and isinstance(sweep.search, PopulationConfig)


def placement(sweep: SweepConfig) -> tune.PlacementGroupFactory:
    """The bundles of one trial: its own process first, then its env runners, then its learners."""
    cluster = sweep.cluster
    own_gpus = cluster.num_gpus_per_learner if cluster.num_learners == 0 else 0
    bundles = [_bundle(own_cpus(sweep), own_gpus)]
    bundles += [_bundle(runner_cpus(sweep), cluster.num_gpus_per_env_runner)] * cluster.num_env_runners
    bundles += [_bundle(cluster.num_cpus_per_learner, cluster.num_gpus_per_learner)] * cluster.num_learners
    return tune.PlacementGroupFactory(bundles)


def _bundle(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
