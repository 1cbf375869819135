"""The live table: a sweep's state drawn with rich, so that it fits the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from marl_tune.live.sweep_state import SweepState, TrialView
from marl_tune.results.formatting import (
    format_count,
    format_duration,
    format_number,
    format_value,
    short_ids,
    short_keys,
)

STATUS_STYLES = {"RUNNING": "cyan", "TERMINATED": "green", "ERROR": "bold red", "PAUSED": "dim", "PENDING": "dim"}
STATUS_WORDS = {  # Tune's word -> ours
    "RUNNING": "running",
    "TERMINATED": "finished",
    "ERROR": "failed",
    "PAUSED": "paused",
    "PENDING": "waiting",
}
FRAME_LINES = 9  # lines beside the rows: three of totals, header, rule, two empty ones, what is left out, the cursor's
COLUMN_GAP = 2  # characters between two columns


@dataclass(frozen=True)
class _Column:
    name: str
    cells: list[str]

    @property
    def width(self) -> int:
        """Characters with the gap to the next column."""
        return max(map(len, [self.name, *self.cells])) + COLUMN_GAP


class SweepTable:
    """A rich renderable: three lines of totals, one row for each trial, the last events.

    If the terminal has too few lines, the best trial is shown first, then failed and running ones. If it is too narrow,
    columns of searched values are left out from the right, and a line below names them.

    Args:
        title: names the sweep.
        state: the sweep's state.
        events: lines that are shown below the table, oldest first.
    """

    def __init__(self, title: str, state: SweepState, events: Sequence[str]) -> None:
        self._title = title
        self._state = state
        self._events = events

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich."""
        state = self._state
        height = (options.height or console.size.height) - FRAME_LINES - len(self._events)
        shown = visible(state, max(1, height))
        settings, hidden = self._fitting(shown, options.max_width)
        yield from (_line(words) for words in self._head())
        yield self._table(shown, settings)
        left_out = rows_left_out(state, shown)
        if hidden:
            left_out = [*left_out, f"not shown: {', '.join(hidden)}"]
        if left_out:
            yield _line(Text("; ".join(left_out), style="dim"))
        yield from (_line(Text(event, style="dim")) for event in self._events)

    def _head(self) -> list[Text]:
        state, counts = self._state, self._state.counts()
        counts["PENDING"] += state.total - len(state.trials)
        words = ", ".join(f"{counts[status]} {word}" for status, word in STATUS_WORDS.items() if counts[status])
        score = Text(f"{state.metric} ({state.mode})  ")
        if state.best is None:
            score.append("no episode has ended yet", style="dim")
        else:
            ids = short_ids([trial.id for trial in state.trials])
            score.append(f"best {format_number(state.best.score)}", style="bold green")
            score.append(f" in trial {ids.get(state.best.trial_id)} at iteration {state.best.iteration}")
        left = state.time_left()
        time_left = f", about {format_duration(left)} left" if left is not None else ""
        speed = f"{format_count(state.steps_per_s())} agent-steps/s"
        return [
            Text.assemble((self._title, "bold"), f"   {words}"),
            score,
            Text(f"elapsed {format_duration(state.elapsed)}{time_left}   {speed}"),
        ]

    def _table(self, shown: Sequence[TrialView], settings: Sequence[_Column]) -> Table:
        state = self._state
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, COLUMN_GAP - 1, 0, 0), header_style="bold")
        first, rest = self._first_columns(shown), self._last_columns(shown)
        for column in (*first, *settings, *rest):
            table.add_column(column.name, justify="left" if column in first[:2] else "right", no_wrap=True)
        for number, trial in enumerate(shown):
            cells: list[str | Text] = [column.cells[number] for column in (*first, *settings, *rest)]
            cells[1] = Text(STATUS_WORDS[trial.status], style=STATUS_STYLES[trial.status])
            best = state.best is not None and trial.id == state.best.trial_id
            table.add_row(*cells, style="bold green" if best else "")
        return table

    def _first_columns(self, shown: Sequence[TrialView]) -> list[_Column]:
        ids = short_ids([trial.id for trial in self._state.trials])
        return [
            _Column("trial", [ids[trial.id] for trial in shown]),
            _Column("status", [STATUS_WORDS[trial.status] for trial in shown]),
            _Column("score", [format_number(trial.score) if trial.iteration else "" for trial in shown]),
        ]

    def _last_columns(self, shown: Sequence[TrialView]) -> list[_Column]:
        of = f"/{self._state.budget.iterations}" if self._state.budget.iterations else ""
        begun = [trial if trial.iteration else None for trial in shown]
        stages = ["" if trial.stage is None else str(trial.stage) for trial in shown]
        return [
            *([_Column("stage", stages)] if any(stages) else []),
            _Column("iteration", [f"{t.iteration}{of}" if t else "" for t in begun]),
            _Column("env steps", [format_count(t.env_steps) if t else "" for t in begun]),
            _Column("steps/s", [format_count(t.steps_per_s) if t else "" for t in begun]),
            _Column("time", [format_duration(t.seconds) if t else "" for t in begun]),
        ]

    def _fitting(self, shown: Sequence[TrialView], width: int) -> tuple[list[_Column], list[str]]:
        """The columns of searched values that fit, and the names of those that do not."""
        names = short_keys(self._state.keys)
        columns = [
            _Column(names[key], [format_value(trial.values.get(key)) for trial in shown]) for key in self._state.keys
        ]
        room = width + COLUMN_GAP
        room -= sum(column.width for column in (*self._first_columns(shown), *self._last_columns(shown)))
        fitting = 0
        while fitting < len(columns) and columns[fitting].width <= room:
            room -= columns[fitting].width
            fitting += 1
        return columns[:fitting], [column.name for column in columns[fitting:]]


def visible(state: SweepState, rows: int) -> list[TrialView]:
    """At most `rows` trials, in their order: the best first, then failed ones, running ones, and the rest by score."""
    if len(state.trials) <= rows:
        return state.trials
    sign = -1 if state.mode == "max" else 1
    best = state.best.trial_id if state.best else None

    def rank(trial: TrialView) -> tuple[bool, bool, bool, float]:
        score = math.inf if math.isnan(trial.score) else sign * trial.score
        return trial.id != best, trial.status != "ERROR", trial.status != "RUNNING", score

    kept = {trial.id for trial in sorted(state.trials, key=rank)[:rows]}
    return [trial for trial in state.trials if trial.id in kept]


def rows_left_out(state: SweepState, shown: Sequence[TrialView]) -> list[str]:
    """The trials without a row, such as ["and 12 waiting, 3 finished"]; empty if all trials have one."""
    counts = state.counts()
    counts.subtract(trial.status for trial in shown)
    words = [f"{counts[status]} {word}" for status, word in STATUS_WORDS.items() if counts[status]]
    return [f"and {', '.join(words)}"] if words else []


def _line(text: Text) -> Text:
    """`text` on one line, cut at the end of the line."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
