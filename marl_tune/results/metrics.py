"""The names that stand in a trial's result, and how results compare. Every key of a result is defined here."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

ELO = "self_play/elo"  # key of a result: the first learner's rating


CURRICULUM = "curriculum"  # key of a result that holds what `Curriculum.numbers` returns
STAGE, STAGES_LEFT = "curriculum/stage", "curriculum/stages_left"  # two of these, by their names in every log
COPY = "copy"  # beside the metrics of finished episodes: the number of each one's copy of the world
STAGE_CHANGE = "stage_change"  # key of a result after which the stage changes: a `StageChange` as a dict
OF_THE_WORLD_ITSELF = "evaluation/"  # metrics with this beginning are of the world itself, whatever the stage

TEAM = "team"  # who has the sum of all agents' returns
EVENTS = "breakthrough_events"  # key of a result with the breakthroughs of its episodes; absent where there are none
COUNT, FREQUENCY = "breakthroughs", "breakthrough_frequency"

RETURN_MEAN_AGENT = "return_mean_agent"  # mean over agents of the extrinsic episode return
RETURN_SUM_TEAM = "return_sum_team"  # sum over agents of it: RLlib's episode_return_mean
FINISHED_RETURNS = "finished_returns"  # list of (number of the runner, (episodes, agents) returns), oldest first
FINISHED_EPISODES = "finished_episodes"  # list of (number of the runner, name in a result -> (episodes,)), oldest first

METRICS = "self_play"  # key of a result with the pool's numbers
TABLE = "self_play_table"  # key of a result: list of one `Pool.table`, which logs of numbers pass over

GAMES = "finished_games"  # list of (number of the runner, Games), oldest first

INTRINSIC_REWARD_MEAN = "intrinsic_reward_mean"  # logged: of an agent's step, weighted as it was learned from

ROW = "row"  # key under which a result carries its number; see ProgressCsv
RENAMED = {"training_iteration": "iteration"}
BOOKKEEPING = {  # what Tune adds to a result that measures nothing
    *("config", "done", "should_checkpoint", "checkpoint_dir_name", "timesteps_total", "episodes_total", ROW, EVENTS),
    STAGE_CHANGE,
    *("trial_id", "trial_name", "experiment_id", "experiment_tag", "date", "timestamp", "pid", "hostname", "node_ip"),
    *("time_since_restore", "iterations_since_restore", "timesteps_since_restore"),
}


def flat_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a result by their names in every log: nested keys joined by "/", Tune's bookkeeping left out."""
    metrics: dict[str, float] = {}
    for key, value in result.items():
        if key not in BOOKKEEPING:
            _flatten(RENAMED.get(key, key), value, metrics)
    return metrics


def _flatten(name: str, value: Any, metrics: dict[str, float]) -> None:
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
    """The stage in which a result was scored, which comes before its score when results are compared.

    Returns of different stages are returns of different worlds: a trial in a later stage is ahead of one in an earlier
    stage, whatever their scores are. Only scores of an evaluation are of one world, and compared as they are.

    Args:
        numbers: the result, flat.
        metric: the score's name in it.
    """
    return 0 if metric.startswith(OF_THE_WORLD_ITSELF) else int(numbers.get(STAGE, 0))


def is_in_last_stage(numbers: Mapping[str, float], metric: str) -> bool:
    """Whether a result's score is of the world itself."""
    return metric.startswith(OF_THE_WORLD_ITSELF) or numbers.get(STAGES_LEFT, 0) == 0


def table_of(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The pool's table in a trial's result; None where there is none."""
    tables: Sequence[dict[str, Any]] = result.get(TABLE, ())
    return tables[0] if tables else None
