"""What stands in the JSON files of a run: evaluation.json, summary.json, self_play.json and manifest.json."""

from __future__ import annotations

from typing import TypedDict


class EvaluationNumbers(TypedDict, total=False):
    """How one policy did on its evaluation episodes. The means of the environment's own metrics stand beside these."""

    episodes: int
    return_mean_agent: float  # mean over episodes of the mean over agents
    return_sum_team: float  # mean over episodes of the sum over agents
    mean_result: float  # only under self-play: win 1, draw 0.5, loss 0; it ranks there
    iqm: float  # interquartile mean of the score; it ranks elsewhere
    ci95: list[float]  # [low, high]: interval of what ranks, at the level `selection.confidence`
    episode_len_mean: float  # in env-steps


class CandidateEntry(EvaluationNumbers, total=False):
    """A checkpoint that was evaluated: an entry of `candidates`."""

    trial: str
    checkpoint: str  # relative to the run's folder
    iteration: int  # training iteration at which it was saved
    training_score: float  # search.metric when it was saved


class BaselineEntry(EvaluationNumbers, total=False):
    """The scripted policy of the environment on the same episodes."""

    name: str  # of its class


class Difference(TypedDict):
    """By how much the winner is ahead of the best candidate of another trial."""

    trial: str  # of that candidate
    difference: float
    ci95: list[float]  # [low, high] of the difference


class EvaluationFile(TypedDict, total=False):
    """best/evaluation.json: how the winner was chosen."""

    metric: str  # search.metric
    mode: str  # max | min
    confidence: float  # level of all intervals, (0, 1)
    explore: bool  # whether actions were drawn from the policy
    seeds: list[int]  # of the episodes
    winner: CandidateEntry
    candidates: list[CandidateEntry]  # best first
    separated: bool  # the interval of `difference_to_next` leaves out 0
    difference_to_next: Difference | None  # None: no candidate of another trial
    baseline: BaselineEntry | None  # None: the environment has none


class BestEntry(TypedDict):
    """The winner of a sweep, in summary.json."""

    trial: str
    overrides: dict[str, object]  # dotted key -> value
    checkpoint: str  # relative to the run's folder
    evaluation: EvaluationNumbers


class SummaryFile(TypedDict, total=False):
    """summary.json, the last file of a run."""

    status: str  # finished | failed (some trial failed for good) | interrupted
    name: str
    seed: int
    metric: str
    mode: str
    wall_time_s: float
    env_steps: int  # of all trials
    agent_steps: int  # of all trials
    trials: list[dict[str, object]]  # some fields of each `TrialRecord`
    best: BestEntry | None  # None: no winner was selected


class SelfPlayTable(TypedDict):
    """The players of a trial's pool; see `Pool.table`. self_play.json has one for each trial."""

    players: list[str]  # learners first, then copies by their age
    elo: list[float]
    win_rates: list[list[float | None]]  # row against column, [0, 1]; None where a pair has not played


class SelfPlayEntry(SelfPlayTable):
    """An entry of self_play.json."""

    iteration: int  # training iteration of the trial that the table is of


class GitState(TypedDict):
    """The state of a git repository."""

    commit: str | None  # None before the first commit
    branch: str | None  # None where no branch is checked out
    dirty: bool  # there are uncommitted changes or untracked files


class Cpu(TypedDict):
    """The processor of the machine."""

    model: str
    cores: int | None


class Session(TypedDict):
    """One process that worked on the run: the first one, or one that resumed it."""

    started: str  # time in ISO format, as all times here
    finished: str | None
    status: str  # running | finished | failed | interrupted
    command: str
    host: str
    git: GitState | None  # None outside of a repository


class Manifest(TypedDict, total=False):
    """manifest.json; `command`, `host` and `git` are those of the newest session."""

    run: str  # name and time of the run
    started: str
    finished: str | None
    seeds: dict[str, int]  # what is seeded -> seed
    python: str  # version
    platform: str
    packages: dict[str, str]  # name -> version
    cpu: Cpu
    memory_bytes: int | None
    gpus: list[str]
    command: str
    host: str
    git: GitState | None
    sessions: list[Session]  # oldest first
