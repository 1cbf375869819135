"""One session of a run: its trials are trained, the winner is selected, every result file is written."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray.tune.experiment import Trial as TuneTrial

from marl_tune.config import convert, overrides
from marl_tune.config.registry import CALLBACKS
from marl_tune.config.schema.self_play import has_opponents
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.search_space import parse, trial_count
from marl_tune.evaluation.selection import select
from marl_tune.live.sweep_state import Budget
from marl_tune.live.views import ProgressView, progress_view
from marl_tune.loggers.breakthroughs_csv import BreakthroughNews, BreakthroughsCsv
from marl_tune.loggers.lineage_csv import LineageCsv
from marl_tune.loggers.progress_csv import ProgressCsv
from marl_tune.loggers.self_play_json import SelfPlayJson
from marl_tune.report import page
from marl_tune.results.callback import SweepCallback, error_line
from marl_tune.results.formatting import score_of
from marl_tune.results.json_records import BestEntry
from marl_tune.results.manifest import finish_manifest
from marl_tune.results.metrics import flat_metrics
from marl_tune.results.records import TrialRecord
from marl_tune.results.run_folder import RunFolder, as_typed
from marl_tune.sweep import in_process_driver, tune_driver

Json = dict[str, Any]  # settings or numbers in the types of JSON


def run_session(sweep: SweepConfig, folder: RunFolder, here: bool) -> str:
    """Trains until all trials have ended or the user interrupts, and writes every result file.

    Args:
        here: train the sweep's only trial in this process; else Tune trains the trials in other processes.

    Returns:
        finished | failed (some trial failed after its retries) | interrupted.
    """
    outcome = _train(sweep, folder, here)
    _conclude(sweep, folder, outcome)
    return outcome.status


@dataclass
class _Outcome:
    trials: Sequence[TuneTrial]
    seconds: float
    interrupted: bool

    @property
    def status(self) -> str:
        if self.interrupted:
            return "interrupted"
        return "failed" if any(trial.status == TuneTrial.ERROR for trial in self.trials) else "finished"


def _train(sweep: SweepConfig, folder: RunFolder, here: bool) -> _Outcome:
    began = time.monotonic()
    callbacks = make_callbacks(sweep, folder)
    view = next(callback for callback in callbacks if isinstance(callback, ProgressView))
    if sweep.breakthroughs is not None:
        callbacks = [*callbacks, BreakthroughNews(callbacks)]
    with view:
        trials, interrupted = (in_process_driver if here else tune_driver).train(sweep, folder, callbacks)
    return _Outcome(trials, time.monotonic() - began, interrupted)


def make_callbacks(sweep: SweepConfig, folder: RunFolder) -> list[SweepCallback]:
    """What listens to the sweep; ProgressCsv first, because it numbers the rows that all others use."""
    space = parse(sweep.space) if sweep.search.name != "none" else {}
    keys, search, logger = list(space), sweep.search, sweep.logger
    callbacks: list[SweepCallback] = [ProgressCsv(folder), LineageCsv(folder)]
    if sweep.breakthroughs is not None:
        callbacks.append(BreakthroughsCsv(folder))
    if has_opponents(sweep):
        callbacks.append(SelfPlayJson(folder))
    if logger.tensorboard:
        from marl_tune.loggers.tensorboard import TensorboardCallback

        callbacks.append(TensorboardCallback(folder, keys, search.metric))
    if logger.wandb is not None:
        from marl_tune.loggers.wandb import WandbCallback

        place = logger.wandb
        tags = [sweep.env.name, sweep.module.name, search.name, *place.tags]
        callbacks.append(
            WandbCallback(
                folder, partial(_resolved, convert.to_dict(sweep)), keys, place.project, place.entity, tags, place.mode
            )
        )
    callbacks += [CALLBACKS[name].load()(sweep, folder) for name in logger.callbacks]
    stop = sweep.stop
    trials = trial_count(search.name, search.num_samples, space)
    budget = Budget(trials, stop.iterations, stop.agent_steps, stop.wall_time_s)
    callbacks.append(progress_view(logger.progress, folder.title, search.metric, search.mode, keys, budget))
    return callbacks


def _resolved(sweep: Json, values: Json) -> Json:
    """A trial's whole config as a plain dict."""
    return convert.to_dict(overrides.apply(convert.from_dict(sweep), values))


def _conclude(sweep: SweepConfig, folder: RunFolder, outcome: _Outcome) -> None:
    """Writes every result file and prints where the report is."""
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
    page.write_report(folder)
    _say(folder, outcome, best, records)


def _record(trial: TuneTrial, sweep: SweepConfig, folder: RunFolder) -> TrialRecord:
    last = trial.last_result or {}
    saved = trial.checkpoint
    score = flat_metrics(last).get(sweep.search.metric)
    return TrialRecord(
        id=trial.trial_id,
        status=trial.status,
        overrides=dict(trial.config),
        score=None if score is None or math.isnan(score) else score,
        iterations=int(last.get("training_iteration", 0)),
        seconds=float(last.get("time_total_s", 0.0)),
        env_steps=int(last.get("env_steps", 0)),
        agent_steps=int(last.get("agent_steps", 0)),
        checkpoint=folder.relative(saved.path) if saved else None,
        error=error_line(trial) if trial.status == TuneTrial.ERROR else None,
    )


def _say(folder: RunFolder, outcome: _Outcome, best: BestEntry | None, records: Sequence[TrialRecord]) -> None:
    """Prints errors of failed trials, the winner and the path of the report."""
    for record in records:
        if record.error is not None:
            print(f"trial {record.id} failed: {record.error}")
    if outcome.status == "interrupted":
        return
    if best is not None:
        numbers = best["evaluation"]
        low, high = numbers["ci95"]
        print(
            f"best: trial {best['trial']}, {score_of(numbers):.2f} [{low:.2f}, {high:.2f}] "
            f"over {numbers['episodes']} unseen episodes (return_sum_team {numbers['return_sum_team']:.2f})"
        )
    print(f"report: {as_typed(folder.report)}")
