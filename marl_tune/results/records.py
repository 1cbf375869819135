"""The records of a run: a trial, an exploit of PBT, a breakthrough."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrialRecord:
    """How one trial ended: a row of trials.csv and an entry of summary.json."""

    id: str  # Tune's id of the trial
    status: str  # Tune's word: PENDING | RUNNING | PAUSED | TERMINATED | ERROR
    overrides: dict[str, Any]  # dotted key -> value, as it can be typed on the command line
    score: float | None = None  # search.metric of the last result; None: no result, or no episode ended
    iterations: int = 0  # training iterations
    seconds: float = 0.0  # time that the trial trained
    env_steps: int = 0  # steps of the world, at least 0
    agent_steps: int = 0  # the same, summed over agents
    checkpoint: str | None = None  # newest checkpoint, relative to the run's folder
    error: str | None = None  # last line of the error that ended the trial


@dataclass(frozen=True)
class LineageRecord:
    """One exploit of population based training: `to` goes on from a copy of `source`, with changed settings."""

    step: int  # training iteration that `to` had reached
    source: str  # trial that was copied
    to: str  # trial that was overwritten
    old: dict[str, Any] = field(default_factory=dict)  # dotted key -> value of `to` before
    new: dict[str, Any] = field(default_factory=dict)  # dotted key -> value of `to` from now on


@dataclass(frozen=True)
class BreakthroughRecord:
    """One breakthrough: a row of breakthroughs.csv."""

    trial: str  # in which it happened
    iteration: int  # training iteration that it had reached
    who: str  # team, or an agent's id
    level: float  # mean return of the window that rose
    baseline: float  # mean return of the episodes before
    deviations: float  # their difference in standard deviations of such a difference; infinite where those are 0
