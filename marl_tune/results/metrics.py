"""The names that stand in a trial's result, and how results compare. Every key of a result is defined here."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import SupportsInt, TypedDict, cast

from marl_tune.results.json_records import SelfPlayTable

Result = dict[str, object]  # what one iteration of a trial reports to Tune: key -> number, list or nested dict

# -- counters and times -----------------------------------------------------------------------------------------------

TRAINING_ITERATION = "training_iteration"  # Tune's: iterations of the trial, from 1
ITERATION = "iteration"  # the same in every log
TIME_THIS_ITER_S = "time_this_iter_s"  # Tune's: seconds of this iteration
TIME_TOTAL_S = "time_total_s"  # Tune's: seconds that the trial has trained
ENV_STEPS = "env_steps"  # env-steps of the trial so far
AGENT_STEPS = "agent_steps"  # agent-steps of the trial so far
STEPS_PER_S = "steps_per_s"  # agent-steps a second, of this iteration
SECONDS = "seconds"  # holds the seconds of this iteration's parts:
SAMPLING, LEARNING = "sampling", "learning"

# -- returns and episodes ---------------------------------------------------------------------------------------------

RETURN_MEAN_AGENT = "return_mean_agent"  # mean over agents of the extrinsic episode return
RETURN_SUM_TEAM = "return_sum_team"  # sum over agents of it: RLlib's episode_return_mean
EPISODE_RETURN_MEAN = "episode_return_mean"  # RLlib's name of the same
EPISODE_LEN_MEAN = "episode_len_mean"  # mean length of the episodes, in env-steps
ENV_RUNNERS = "env_runners"  # holds the metrics of the training episodes that ended
LEARNERS = "learners"  # holds the statistics of the update: module id -> name -> number
EVALUATION = "evaluation"  # holds the means over held-out episodes, in the iterations that play some
OF_THE_WORLD_ITSELF = f"{EVALUATION}/"  # metrics with this beginning are of the world itself, whatever the stage
INTRINSIC_REWARD_MEAN = "intrinsic_reward_mean"  # mean over agent-steps of the intrinsic reward, weighted as learned

# -- what env runners tell the trial, which takes it out of the result ------------------------------------------------

FINISHED_RETURNS = "finished_returns"  # list of (number of the runner, (episodes, agents) returns), oldest first
FINISHED_EPISODES = "finished_episodes"  # list of (number of the runner, name in a result -> (episodes,)), oldest first
COPY = "copy"  # beside the metrics of finished episodes: the number of each one's copy of the world
GAMES = "finished_games"  # list of (number of the runner, Games), oldest first

# -- self-play --------------------------------------------------------------------------------------------------------

METRICS = "self_play"  # holds the numbers of the pool
ELO = "self_play/elo"  # one of them, by its name in every log: the first learner's rating
TABLE = "self_play_table"  # list with one table of the pool; a list, so that logs of numbers leave it out

# -- curriculum -------------------------------------------------------------------------------------------------------

CURRICULUM = "curriculum"  # holds what `Curriculum.numbers` returns
STAGE, STAGES_LEFT = "curriculum/stage", "curriculum/stages_left"  # two of these, by their names in every log
STAGE_CHANGE = "stage_change"  # in a result after which the stage changes: a `StageChange` as a dict

# -- breakthroughs ----------------------------------------------------------------------------------------------------

TEAM = "team"  # `who` of a breakthrough in the sum of all agents' returns
EVENTS = "breakthrough_events"  # the breakthroughs of this iteration's episodes; absent where there are none
COUNT = "breakthroughs"  # their number so far
FREQUENCY = "breakthrough_frequency"  # their number per 1000 finished episodes; NaN before the first

# -- logs -------------------------------------------------------------------------------------------------------------

ROW = "row"  # number of the result within its trial, from 1; `ProgressCsv` sets it
RENAMED = {TRAINING_ITERATION: ITERATION}
BOOKKEEPING = {  # keys that measure nothing: most are Tune's
    *("config", "done", "should_checkpoint", "checkpoint_dir_name", "timesteps_total", "episodes_total", ROW, EVENTS),
    STAGE_CHANGE,
    *("trial_id", "trial_name", "experiment_id", "experiment_tag", "date", "timestamp", "pid", "hostname", "node_ip"),
    *("time_since_restore", "iterations_since_restore", "timesteps_since_restore"),
}


class BreakthroughEvent(TypedDict):
    """One entry of a result's `EVENTS`; the arguments of `SweepCallback.on_breakthrough` by their names."""

    who: str
    level: float
    baseline: float
    deviation: float


class StageChangeEvent(TypedDict):
    """A result's `STAGE_CHANGE`: the trial leaves one stage of its curriculum for another."""

    left: int  # stage, from 0
    entered: int
    level: float  # mean of the curriculum's metric that was judged
    limit: float  # number that it passed


def iteration_of(result: Mapping[str, object]) -> int:
    """The training iteration that a result ends, from 1."""
    return int(cast(SupportsInt, result[TRAINING_ITERATION]))


def row_of(result: Mapping[str, object]) -> int:
    """The number of a result within its trial, from 1. Raises KeyError before `ProgressCsv` has set it."""
    return int(cast(SupportsInt, result[ROW]))


def events_of(result: Mapping[str, object]) -> list[BreakthroughEvent]:
    """The breakthroughs that a result tells of; empty where there are none."""
    return cast("list[BreakthroughEvent]", result.get(EVENTS, []))


def stage_change_of(result: Mapping[str, object]) -> StageChangeEvent | None:
    """The change of stage that follows a result; None where the trial stays in its stage."""
    return cast("StageChangeEvent | None", result.get(STAGE_CHANGE))


def table_of(result: Mapping[str, object]) -> SelfPlayTable | None:
    """The pool's table in a result; None where there is none."""
    tables = cast("list[SelfPlayTable]", result.get(TABLE, []))
    return tables[0] if tables else None


def flat_metrics(result: Mapping[str, object]) -> dict[str, float]:
    """The numbers of a result by their names in every log: nested keys are joined by "/"; bookkeeping is left out."""
    metrics: dict[str, float] = {}
    for key, value in result.items():
        if key not in BOOKKEEPING:
            _flatten(RENAMED.get(key, key), value, metrics)
    return metrics


def _flatten(name: str, value: object, metrics: dict[str, float]) -> None:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _flatten(f"{name}/{key}", entry, metrics)
    elif isinstance(value, bool | numbers.Integral):
        metrics[name] = int(value)
    elif isinstance(value, numbers.Real):
        metrics[name] = float(value)
    elif hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # an array or tensor that holds one number
        metrics[name] = float(value.item())


def ranking_stage(numbers: Mapping[str, float], metric: str) -> int:
    """The stage in which a result was scored. Results are compared by it first, and by their score second.

    Returns of different stages are returns of different worlds. So a trial in a later stage ranks above one in an
    earlier stage, whatever their scores are. Scores of an evaluation are all of one world, the last stage's: they are
    compared as they are, and their stage counts as 0.

    Args:
        numbers: the result, flat.
        metric: the score's name in it.
    """
    return 0 if metric.startswith(OF_THE_WORLD_ITSELF) else int(numbers.get(STAGE, 0))


def is_in_last_stage(numbers: Mapping[str, float], metric: str) -> bool:
    """Whether a result's score is of the world itself, and not of an earlier stage of its curriculum."""
    return metric.startswith(OF_THE_WORLD_ITSELF) or numbers.get(STAGES_LEFT, 0) == 0
