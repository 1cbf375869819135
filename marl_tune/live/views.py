"""Progress in the terminal: a live table, plain lines (if the output is not a terminal), or nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from ray.tune.experiment import Trial
from rich.console import Console
from rich.live import Live

from marl_tune.live.sweep_state import Budget, SweepState
from marl_tune.live.table import STATUS_WORDS, SweepTable
from marl_tune.results.callback import SweepCallback, error_line, searched
from marl_tune.results.formatting import (
    format_count,
    format_duration,
    format_number,
    format_value,
    short_ids,
    short_keys,
)
from marl_tune.results.metrics import TEAM, Result, iteration_of, stage_change_of

REFRESH_S = 0.5  # least time between two drawings of the table
IDLE_REFRESH_S = 1.0  # the same while nothing happens: the clock is still shown
LINE_S = 10.0  # least time between two plain lines of progress
EVENTS = 3  # newest events shown below the table


def progress_view(
    progress: str,
    title: str,
    metric: str,
    mode: str,
    keys: Sequence[str],
    budget: Budget,
    console: Console | None = None,
) -> ProgressView:
    """Makes the view that `progress` (auto | live | plain | off) names; auto is live on a terminal, else plain.

    Args:
        progress: `logger.progress`.
        title: names the sweep, such as `ant_colony/2026-11-21_10-00-00`.
        metric, mode, keys, budget: as in `marl_tune.live.sweep_state.SweepState`.
        console: where to draw. Default: stdout.
    """
    console = console or Console()
    if progress == "auto":
        progress = "live" if console.is_terminal and not console.is_dumb_terminal else "plain"
    view = {"live": LiveView, "plain": PlainView, "off": ProgressView}[progress]
    return view(title, SweepState(metric, mode, keys, budget), console)


class ProgressView(SweepCallback):
    """Shows nothing. It is the base of all views, and a context around a sweep that always restores the terminal.

    Args:
        title: names the sweep.
        state: the sweep's state.
        console: where to draw.
    """

    def __init__(self, title: str, state: SweepState, console: Console) -> None:
        self.title = title
        self.state = state
        self.console: Console | None = console

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "console": None}  # Tune pickles its callbacks, but a pickled view is never shown

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Restores the terminal. May be called twice."""

    def on_experiment_end(self, trials: list[Trial], **info: object) -> None:
        """Restores the terminal."""
        self.close()


class _EventView(ProgressView):
    """A view that shows events as lines: start, finish, failure, exploit, change of stage, breakthrough."""

    short = False  # whether names of trials and settings are shown without their common part

    def __init__(self, title: str, state: SweepState, console: Console) -> None:
        super().__init__(title, state, console)
        self._started: set[str] = set()
        self._failed: list[tuple[Trial, str]] = []  # failures not shown yet: (trial, what happens next)
        self._risen: dict[tuple[str, int], list[str]] = {}  # breakthroughs not shown yet: (trial, iteration) -> lines

    def show(self, line: str, important: bool) -> None:
        """Shows one event as a line. An important one stays on the screen."""
        raise NotImplementedError

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Shows the trial's searched values when it starts for the first time."""
        self.state.update(trials)
        if trial.trial_id not in self._started:  # Tune also announces trials that continue after a pause
            self._started.add(trial.trial_id)
            values = searched(trial, self.state.keys)
            settings = " ".join(f"{self._key(key)}={format_value(value)}" for key, value in values.items())
            self.show(f"started  {self._trial(trial.trial_id)}  {settings}".rstrip(), False)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Result, **info: object
    ) -> None:
        """Updates the state; shows a change of stage."""
        self.state.add_result(trial, result)
        change = stage_change_of(result)
        if change is not None:
            how = "reached" if change["entered"] > change["left"] else "is below"
            numbers = f"its mean {format_number(change['level'])} {how} {format_number(change['limit'])}"
            moved = f"stage {change['left']} → {change['entered']} at iteration {iteration_of(result)}: {numbers}"
            self.show(f"stage    {self._trial(trial.trial_id)}  {moved}", False)

    def on_exploit(
        self, trial_id: str, donor_id: str, iteration: int, old: Mapping[str, object], new: Mapping[str, object]
    ) -> None:
        """Shows who copies whom, and which settings change."""
        changes = ", ".join(
            f"{self._key(key)} {format_value(old.get(key))} → {format_value(value)}" for key, value in new.items()
        )
        copy = f"{self._trial(trial_id)} copies {self._trial(donor_id)}"
        self.show(f"exploit  {copy} at iteration {iteration}: {changes}", False)

    def on_breakthrough(
        self, trial_id: str, iteration: int, who: str, level: float, baseline: float, deviation: float
    ) -> None:
        """Keeps the breakthrough until the end of the step, so that those of one result share a line."""
        rise = f"{who} return {format_number(baseline)} → {format_number(level)}"
        self._risen.setdefault((trial_id, iteration), []).append(rise)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Shows the trial's last score and what it took."""
        self._tell_breakthroughs()  # of its last result
        end = self.state.view(trial)
        score = f"{self.state.metric} {format_number(end.score)}"
        budget = f"{end.iteration} iterations, {end.agent_steps:,} agent-steps, {format_duration(end.seconds)}"
        self.show(f"finished {self._trial(trial.trial_id)}  {score} after {budget}", False)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Keeps a failure that is followed by a restart, until Tune has written its error."""
        self._failed.append((trial, ", is started again"))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Keeps a failure until Tune has written its error."""
        self._failed.append((trial, ""))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Shows the failures and breakthroughs of the step."""
        self._tell()

    def on_experiment_end(self, trials: list[Trial], **info: object) -> None:
        """Shows what is left to show, and restores the terminal."""
        self._tell()
        super().on_experiment_end(trials, **info)

    def _tell(self) -> None:
        self._tell_breakthroughs()
        self._tell_failures()

    def _tell_breakthroughs(self) -> None:
        """One line for all breakthroughs of a trial in one iteration: the team's in words, of the others the number."""
        for (trial_id, iteration), rises in self._risen.items():
            first, others = min(rises, key=lambda rise: not rise.startswith(f"{TEAM} ")), len(rises) - 1
            more = f", {others} more {'returns' if others > 1 else 'return'} with it" if others else ""
            self.show(f"breakthrough {self._trial(trial_id)}  {first} at iteration {iteration}{more}", False)
        self._risen.clear()

    def _tell_failures(self) -> None:
        """Tune announces a failure before it has written the error, so a failure is shown at the end of the step."""
        for trial, then in self._failed:
            self.show(f"failed   {self._trial(trial.trial_id)}{then}: {error_line(trial)}", True)
        self._failed.clear()

    def _trial(self, trial_id: str) -> str:
        ids = short_ids([trial_id, *(trial.id for trial in self.state.trials)])
        return ids[trial_id] if self.short else trial_id

    def _key(self, key: str) -> str:
        return short_keys(self.state.keys).get(key, key) if self.short else key


class LiveView(_EventView):
    """A table that is redrawn in place, at most twice a second. Failures are also printed above it, and stay."""

    short = True

    def __init__(self, title: str, state: SweepState, console: Console) -> None:
        super().__init__(title, state, console)
        self._events: deque[str] = deque(maxlen=EVENTS)
        self._live: Live | None = None
        self._drawn = -REFRESH_S
        self._changed = True

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_live": None}

    def setup(self, *args: object, **info: object) -> None:
        """Draws the table for the first time; called by Tune when the sweep starts."""
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Draws the table if the last drawing is old enough."""
        super().on_step_end(iteration, trials, **info)
        since = self.state.elapsed - self._drawn
        if since >= (REFRESH_S if self._changed else IDLE_REFRESH_S):
            self._draw(trials)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Result, **info: object
    ) -> None:
        """Updates the state; the next drawing shows it."""
        super().on_trial_result(iteration, trials, trial, result, **info)
        self._changed = True

    def on_experiment_end(self, trials: list[Trial], **info: object) -> None:
        """Draws the table a last time; it stays on the screen."""
        self._tell()
        self._draw(trials)
        self.close()

    def show(self, line: str, important: bool) -> None:
        """Adds the event below the table; prints an important one above it, too."""
        self._changed = True
        text = f"{format_duration(self.state.elapsed)}  {line}"
        self._events.append(text)
        if important and self.console is not None:
            self.console.print(text, style="red", markup=False, highlight=False)

    def close(self) -> None:
        """Ends the drawing in place."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def _draw(self, trials: Sequence[Trial]) -> None:
        if self._live is None:
            return
        self.state.update(trials)
        self._drawn, self._changed = self.state.elapsed, False
        self._live.update(SweepTable(self.title, self.state, tuple(self._events)), refresh=True)


class PlainView(_EventView):
    """Lines for a log file: one for each event, and one of progress every ten seconds.

    Args:
        title, state, console: as in `ProgressView`.
        clock: returns seconds, which never go back.
    """

    def __init__(
        self, title: str, state: SweepState, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(title, state, console)
        self._clock = clock
        self._printed = clock() - LINE_S  # the first result is shown at once
        self._changed = False

    def setup(self, *args: object, **info: object) -> None:
        """Shows the title; called by Tune when the sweep starts."""
        self.show(f"sweep {self.title}: {self.state.metric} ({self.state.mode})", True)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Result, **info: object
    ) -> None:
        """Updates the state; the next drawing shows it."""
        super().on_trial_result(iteration, trials, trial, result, **info)
        self._changed = True

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Shows the events of the step, and progress if the last line of it is old enough."""
        super().on_step_end(iteration, trials, **info)
        if self._changed and self._clock() - self._printed >= LINE_S:
            self._printed, self._changed = self._clock(), False
            self.state.update(trials)
            self.show(self._line(), True)

    def show(self, line: str, important: bool) -> None:
        """Prints the event with the time since the start."""
        if self.console is not None:  # not rich's print: it would wrap a line to the width of a terminal
            print(f"[{format_duration(self.state.elapsed)}] {line}", file=self.console.file, flush=True)

    def _line(self) -> str:
        """The progress of the sweep in one line."""
        state = self.state
        counts = state.counts()
        words = [f"{counts[status]} {word}" for status, word in STATUS_WORDS.items() if counts[status]]
        reached = [trial.iteration for trial in state.trials if trial.status == "RUNNING"] or [0]
        span = f"{min(reached)}-{max(reached)}" if min(reached) < max(reached) else str(max(reached))
        of = f"/{state.budget.iterations}" if state.budget.iterations else ""
        best = "no episode has ended yet"
        if state.best is not None:
            best = f"best {format_number(state.best.score)} ({state.best.trial_id})"
        left = state.time_left()
        time_left = f", about {format_duration(left)} left" if left is not None else ""
        speed = f"{format_count(state.steps_per_s())} agent-steps/s"
        return f"progress {', '.join(words)} of {state.total}, iteration {span}{of}, {best}, {speed}{time_left}"
