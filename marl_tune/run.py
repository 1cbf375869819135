"""Runs a sweep: its folder, Ray, Tune, the selection, the result files, and the exit code."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.tune import ResumeConfig

from marl_tune import cluster, convert, overrides, report
from marl_tune.callbacks import LineageCsv, ProgressCsv, SweepCallback, error_line
from marl_tune.live import ProgressView, progress_view
from marl_tune.live_state import Budget
from marl_tune.manifest import begin_manifest, finish_manifest
from marl_tune.plan import print_plan
from marl_tune.resources import check_cluster
from marl_tune.results import RunFolder, TrialRecord, write_text
from marl_tune.schema import SweepConfig
from marl_tune.search import SearchPlan, plan, seed_everything
from marl_tune.selection import select
from marl_tune.space import parse, trial_count
from marl_tune.stopping import SweepStopper
from marl_tune.trial import Trial

FINISHED, SOME_FAILED, INTERRUPTED = 0, 1, 130


def run(sweep: SweepConfig, command: Sequence[str]) -> int:
    """Runs, or goes on with, or (dry_run) only plans a sweep.

    Returns:
        0 all trials finished, 1 some trial failed after its retries, 130 interrupted (`resume=` goes on with it).
    """
    if sweep.dry_run:
        print_plan(sweep)
        return FINISHED
    folder = None if sweep.resume is None else RunFolder.open(sweep.resume)
    resumed = folder is not None
    if folder is not None:
        sweep = saved_sweep(folder)
        ignored = [word for word in command if "=" in word and not word.startswith("resume=")]
        if ignored:
            print(f"a resumed run keeps its own settings; ignored: {' '.join(ignored)}", file=sys.stderr)
    cluster.connect(sweep.cluster)
    check_cluster(sweep.cluster, cluster.available(), "the cluster")
    if folder is None:
        folder = RunFolder.create(sweep.results_dir, sweep.name)
        write_text(folder.config, yaml.safe_dump(convert.to_dict(sweep), sort_keys=False))
    begin_manifest(folder, {"sweep": sweep.seed, "selection": sweep.selection.seed}, command)
    outcome = _search(sweep, folder, resumed)
    return _conclude(sweep, folder, outcome)


def saved_sweep(folder: RunFolder) -> SweepConfig:
    """The settings of an earlier run, from its config.yaml."""
    return convert.from_dict(yaml.safe_load(folder.config.read_text()))


@dataclass
class _Outcome:
    trials: list[TuneTrial]
    seconds: float
    interrupted: bool

    @property
    def status(self) -> str:
        if self.interrupted:
            return "interrupted"
        return "failed" if any(trial.status == TuneTrial.ERROR for trial in self.trials) else "finished"


class _Interrupts:
    """Tells whether Tune ended because of a signal; SIGTERM, which clusters send, is taken like SIGINT.

    Tune ends its loop at the first SIGINT, saves its state, and puts the handler back that it found, which it does not
    do otherwise. No other trace of an interruption is left: every living trial is marked as terminated.
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


def _search(sweep: SweepConfig, folder: RunFolder, resumed: bool) -> _Outcome:
    """Hands the trials to Tune until all have ended or the user interrupts."""
    began = time.monotonic()
    seed_everything(sweep.seed)
    parts = plan(sweep, parse(sweep.space), folder.path)
    callbacks = make_callbacks(sweep, folder)
    if hasattr(parts.scheduler, "listeners"):
        parts.scheduler.listeners.extend(callbacks)
    view = next(callback for callback in callbacks if isinstance(callback, ProgressView))
    with _Interrupts() as interrupts, view:
        analysis = _tune(sweep, folder, parts, callbacks, resumed)
    return _Outcome(list(analysis.trials), time.monotonic() - began, interrupts.happened)


def _tune(
    sweep: SweepConfig, folder: RunFolder, parts: SearchPlan, callbacks: list[SweepCallback], resumed: bool
) -> tune.ExperimentAnalysis:
    trainable = tune.with_resources(
        tune.with_parameters(Trial, sweep=convert.to_dict(sweep)), cluster.placement(sweep.cluster)
    )
    return tune.run(
        trainable,
        name=folder.tune.name,
        storage_path=str(folder.path),
        config=parts.param_space,
        num_samples=sweep.search.num_samples,
        search_alg=parts.algorithm,
        scheduler=parts.scheduler,
        stop=SweepStopper(sweep.stop, sweep.search.metric, sweep.search.mode),
        checkpoint_config=tune.CheckpointConfig(
            num_to_keep=sweep.checkpoint.num_to_keep,
            checkpoint_frequency=sweep.checkpoint.frequency,
            checkpoint_at_end=sweep.checkpoint.at_end,
        ),
        max_failures=sweep.cluster.max_failures,
        reuse_actors=True,
        raise_on_failed_trial=False,
        callbacks=callbacks,
        verbose=0,
        resume_config=ResumeConfig(errored=ResumeConfig.ResumeType.RESUME) if resumed else None,
        resume=resumed,
        trial_dirname_creator=_trial_folder,
    )


def _trial_folder(trial: TuneTrial) -> str:
    return trial.trial_id  # the default puts every searched value into the name, beyond what a file system takes


def make_callbacks(sweep: SweepConfig, folder: RunFolder) -> list[SweepCallback]:
    """What listens to the sweep; ProgressCsv first, because it numbers the rows that all others use."""
    space = parse(sweep.space) if sweep.search.name != "none" else {}
    keys, search, logger = list(space), sweep.search, sweep.logger
    callbacks: list[SweepCallback] = [ProgressCsv(folder), LineageCsv(folder)]
    if logger.tensorboard:
        from marl_tune.logging_tensorboard import TensorboardCallback

        callbacks.append(TensorboardCallback(folder, keys, search.metric))
    if logger.wandb is not None:
        from marl_tune.logging_wandb import WandbCallback

        place = logger.wandb
        tags = [sweep.env.name, sweep.module.name, search.name, *place.tags]
        callbacks.append(
            WandbCallback(
                folder, partial(_resolved, convert.to_dict(sweep)), keys, place.project, place.entity, tags, place.mode
            )
        )
    stop = sweep.stop
    trials = trial_count(search.name, search.num_samples, space)
    budget = Budget(trials, stop.iterations, stop.agent_steps, stop.wall_time_s)
    callbacks.append(progress_view(logger.progress, folder.title, search.metric, search.mode, keys, budget))
    return callbacks


def _resolved(sweep: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A trial's whole config as a plain dict."""
    return convert.to_dict(overrides.apply(convert.from_dict(sweep), values))


def _conclude(sweep: SweepConfig, folder: RunFolder, outcome: _Outcome) -> int:
    """Writes every result file, summary.json last, and says where things are."""
    records = [_record(trial, sweep, folder) for trial in outcome.trials]
    if outcome.interrupted:
        for record, trial in zip(records, outcome.trials, strict=True):
            if record.status == TuneTrial.TERMINATED and not (trial.last_result or {}).get("done"):
                record.status = TuneTrial.PAUSED
    folder.write_trials(records)
    best = None if outcome.status == "interrupted" else select(sweep, outcome.trials, folder)
    folder.write_summary(
        status=outcome.status,
        name=sweep.name,
        seed=sweep.seed,
        metric=sweep.search.metric,
        mode=sweep.search.mode,
        wall_time_s=outcome.seconds,
        trials=records,
        best=best,
    )
    finish_manifest(folder, outcome.status)
    report.write_report(folder)
    _say(folder, outcome, best, records)
    return {"finished": FINISHED, "failed": SOME_FAILED, "interrupted": INTERRUPTED}[outcome.status]


def _record(trial: TuneTrial, sweep: SweepConfig, folder: RunFolder) -> TrialRecord:
    last = trial.last_result or {}
    saved = trial.checkpoint
    score = last.get(sweep.search.metric)
    return TrialRecord(
        id=trial.trial_id,
        status=trial.status,
        overrides=dict(trial.config),
        score=None if score is None or score != score else float(score),
        iterations=int(last.get("training_iteration", 0)),
        seconds=float(last.get("time_total_s", 0.0)),
        env_steps=int(last.get("env_steps", 0)),
        agent_steps=int(last.get("agent_steps", 0)),
        checkpoint=folder.relative(saved.path) if saved else None,
        error=error_line(trial) if trial.status == TuneTrial.ERROR else None,
    )


def _say(folder: RunFolder, outcome: _Outcome, best: dict[str, Any] | None, records: Sequence[TrialRecord]) -> None:
    for record in records:
        if record.error is not None:
            print(f"trial {record.id} failed: {record.error}")
    if outcome.status == "interrupted":
        print(f"interrupted; go on with: python -m marl_tune resume={_shown(folder.path)}")
        return
    if best is not None:
        numbers = best["evaluation"]
        low, high = numbers["ci95"]
        print(
            f"best: trial {best['trial']}, {numbers['iqm']:.2f} [{low:.2f}, {high:.2f}] "
            f"over {numbers['episodes']} unseen episodes (return_sum_team {numbers['return_sum_team']:.2f})"
        )
    print(f"report: {_shown(folder.report)}")


def _shown(path: Path) -> str:
    """A path as a user types it from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
