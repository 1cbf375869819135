"""The records of a run: a trial, an exploit of PBT, a breakthrough."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TrialRecord:
    """How one trial ended: a row of trials.csv and an entry of summary.json."""

    id: str  # Tune's id of the trial
    status: str  # Tune's word: PENDING | RUNNING | PAUSED | TERMINATED | ERROR
    overrides: dict[str, object]  # dotted key -> value, as it can be typed on the command line
    score: float | None = None  # search.metric of the last result; None: no result yet, or no episode has ended
    iterations: int = 0  # training iterations
    seconds: float = 0.0  # time that the trial trained
    env_steps: int = 0
    agent_steps: int = 0
    checkpoint: str | None = None  # newest checkpoint, relative to the run's folder
    error: str | None = None  # last line of the error that ended the trial


@dataclass(frozen=True)
class LineageRecord:
    """One exploit of population based training: `to` continues from a copy of `source`, with changed settings."""

    step: int  # training iteration that `to` had reached
    source: str  # trial that was copied
    to: str  # trial that was overwritten
    old: dict[str, object] = field(default_factory=dict)  # dotted key -> value of `to` before
    new: dict[str, object] = field(default_factory=dict)  # dotted key -> value of `to` from now on


@dataclass(frozen=True)
class BreakthroughRecord:
    """One breakthrough: a row of breakthroughs.csv."""

    trial: str  # in which it happened
    iteration: int  # training iteration that it had reached
    who: str  # team, or an agent's id
    level: float  # mean return of the newest window of episodes
    baseline: float  # mean return of the episodes before that window
    deviations: float  # level - baseline, in standard deviations of that difference; infinite if these are 0
