"""The state of a running sweep: its trials, the best score so far, the speed, the time left. Views show it."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ray.tune.experiment import Trial

from marl_tune.results.callback import searched
from marl_tune.results.metrics import (
    AGENT_STEPS,
    ENV_STEPS,
    ITERATION,
    STAGE,
    STEPS_PER_S,
    TIME_THIS_ITER_S,
    TIME_TOTAL_S,
    flat_metrics,
    ranking_stage,
)

SPEED_WINDOW_S = 60.0  # the speed is the mean over this many newest seconds
DONE = ("TERMINATED", "ERROR")


@dataclass(frozen=True)
class Budget:
    """What ends the sweep: the limits from which the time left is estimated."""

    trials: int | None  # trials that will be started; None: not known
    iterations: int | None  # stop.iterations
    agent_steps: int | None  # stop.agent_steps
    wall_time_s: float | None  # stop.wall_time_s

    def share(self, iteration: float, agent_steps: float) -> float | None:
        """The used share of a trial's budget, [0, 1]; None if the budget does not say when a trial ends."""
        shares = [
            reached / limit
            for reached, limit in ((iteration, self.iterations), (agent_steps, self.agent_steps))
            if limit is not None
        ]
        return min(1.0, max(shares)) if shares else None


@dataclass(frozen=True)
class TrialView:
    """One trial as a view shows it."""

    id: str
    status: str  # PENDING | RUNNING | PAUSED | TERMINATED | ERROR
    score: float  # of the newest result; NaN before the first
    values: Mapping[str, object]  # searched dotted key -> value
    iteration: int
    env_steps: int
    agent_steps: int
    steps_per_s: float  # agent-steps a second of the newest iteration; NaN before the first
    seconds: float  # that it has trained
    stage: int | None = None  # stage of its curriculum, from 0; None: no curriculum


@dataclass(frozen=True)
class Best:
    """The best score of all results so far; of a curriculum, only results of the latest stage count."""

    trial_id: str
    score: float
    iteration: int
    stage: int = 0  # stage of the curriculum, from 0


class SweepState:
    """Collects the trials and results of a sweep.

    Args:
        metric: name of the metric that ranks the trials, as in progress.csv.
        mode: max | min.
        keys: the searched dotted keys.
        budget: what ends the sweep.
        clock: returns seconds, which never go back.
    """

    def __init__(
        self, metric: str, mode: str, keys: Sequence[str], budget: Budget, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.metric = metric
        self.mode = mode
        self.keys = list(keys)
        self.budget = budget
        self.best: Best | None = None
        self.trials: list[TrialView] = []
        self._clock = clock
        self._began = clock()
        self._work_before: float | None = None  # work of earlier sessions, in whole trials
        self._sampled: deque[tuple[float, float]] = deque()  # (time, agent-steps) of each result

    def add_result(self, trial: Trial, result: Mapping[str, object]) -> None:
        """Updates the best score and the speed by a new result."""
        metrics = flat_metrics(result)
        now = self._clock()
        self._sampled.append((now, metrics.get(STEPS_PER_S, 0.0) * metrics.get(TIME_THIS_ITER_S, 0.0)))
        self._compare(self.view_of(trial, metrics), ranking_stage(metrics, self.metric))

    def update(self, trials: Sequence[Trial]) -> None:
        """Updates the views of all trials."""
        self.trials = [self.view(each) for each in trials]
        if self._work_before is None:
            self._work_before = self._work()
            for trial in self.trials:  # a resumed sweep has results already
                self._compare(trial, ranking_stage({STAGE: trial.stage or 0}, self.metric))

    def view(self, trial: Trial) -> TrialView:
        """The view of a trial after its newest result."""
        return self.view_of(trial, flat_metrics(trial.last_result or {}))

    def view_of(self, trial: Trial, metrics: Mapping[str, float]) -> TrialView:
        """The view of a trial after a result of it, given as flat metrics."""
        return TrialView(
            id=trial.trial_id,
            status=trial.status,
            score=metrics.get(self.metric, math.nan),
            values=searched(trial, self.keys),
            iteration=int(metrics.get(ITERATION, 0)),
            env_steps=int(metrics.get(ENV_STEPS, 0)),
            agent_steps=int(metrics.get(AGENT_STEPS, 0)),
            steps_per_s=metrics.get(STEPS_PER_S, math.nan),
            seconds=metrics.get(TIME_TOTAL_S, 0.0),
            stage=int(metrics[STAGE]) if STAGE in metrics else None,
        )

    def counts(self) -> Counter[str]:
        """Status -> number of trials."""
        return Counter(trial.status for trial in self.trials)

    @property
    def total(self) -> int:
        """Number of trials of the sweep. If known, it includes trials that Tune has not made yet."""
        return max(len(self.trials), self.budget.trials or 0)

    @property
    def elapsed(self) -> float:
        """Seconds since this session began."""
        return self._clock() - self._began

    def steps_per_s(self) -> float:
        """Agent-steps a second of the whole sweep, over the last `SPEED_WINDOW_S` seconds."""
        now = self._clock()
        while self._sampled and self._sampled[0][0] < now - SPEED_WINDOW_S:
            self._sampled.popleft()
        span = min(SPEED_WINDOW_S, now - self._began)
        return sum(steps for _, steps in self._sampled) / span if span > 0 else 0.0

    def time_left(self) -> float | None:
        """Estimated seconds to the end of the sweep; None while there is no basis for an estimate.

        The remaining work is divided by the mean speed so far. The result is at least what the slowest running trial
        needs, and at most what is left of `stop.wall_time_s`.
        """
        estimates = []
        work, limit = self._work(), self.budget.wall_time_s
        done = work - (self._work_before or 0.0)
        if done > 0 and self.elapsed > 0:
            mean = (self.total - work) * self.elapsed / done
            estimates.append(max([mean, *self._needs()]))
        if limit is not None:
            estimates.append(max(0.0, limit - self.elapsed))
        return min(estimates) if estimates else None

    def _compare(self, trial: TrialView, stage: int) -> None:
        sign, best = 1 if self.mode == "max" else -1, self.best
        if math.isnan(trial.score):
            return
        if best is None or (stage, sign * trial.score) > (best.stage, sign * best.score):
            self.best = Best(trial.id, trial.score, trial.iteration, stage)

    def _needs(self) -> list[float]:
        """Seconds that each running trial still needs at its own speed."""
        needs = []
        for trial in self.trials:
            share = self.budget.share(trial.iteration, trial.agent_steps)
            if trial.status == "RUNNING" and share:
                needs.append(trial.seconds * (1 - share) / share)
        return needs

    def _work(self) -> float:
        """The work that is done, in whole trials."""
        return sum(
            1.0 if trial.status in DONE else self.budget.share(trial.iteration, trial.agent_steps) or 0.0
            for trial in self.trials
        )
