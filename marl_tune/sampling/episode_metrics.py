"""What ended episodes tell: their records, and the metrics that runners report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EPISODE_LEN_MEAN, EPISODE_RETURN_MEAN
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from marl_tune.envs.agent_group import AgentGroup
from marl_tune.results.metrics import COPY, RETURN_MEAN_AGENT, RETURN_SUM_TEAM

LIFETIME = "_lifetime"  # how RLlib's names of counts end that are never reset


def by_runner(items: Any) -> list[Any]:
    """What the runners told under one key, in the order of their numbers: [(number, item), …] -> [item, …]."""
    of_runners = [items] if isinstance(items, tuple) else items  # RLlib takes a lone item out of its list
    return [item for _, item in sorted(of_runners, key=itemgetter(0))]


def by_episode(records: Sequence[EpisodeRecord]) -> dict[str, np.ndarray]:
    """What a result has the means of, episode by episode: name in the result -> (episodes,), NaN where not measured;
    `COPY` -> its copy of the world."""
    teams = np.array([sum(record.returns.values()) for record in records])
    names = sorted({name for record in records for name in record.metrics})
    of_runners = {EPISODE_RETURN_MEAN: teams, EPISODE_LEN_MEAN: np.array([float(record.length) for record in records])}
    of_runners |= {name: np.array([record.metrics.get(name, math.nan) for record in records]) for name in names}
    agents = np.array([len(record.returns) for record in records])
    returns = {RETURN_MEAN_AGENT: teams / agents, RETURN_SUM_TEAM: teams}
    named = {f"{ENV_RUNNER_RESULTS}/{name}": values for name, values in of_runners.items()}
    return {COPY: np.array([record.copy for record in records])} | returns | named


def forget_world(metrics: MetricsLogger, *section: str) -> None:
    """Deletes what RLlib goes on reporting of a world that is gone: means of its episodes, counts of its agents.

    Args:
        section: the keys under which a runner's numbers stand, none in its own logger.
    """
    numbers = metrics.stats
    for key in section:
        numbers = numbers.get(key, {})
    for name in [name for name in numbers if not name.endswith(LIFETIME)]:
        metrics.delete(*section, name)


@dataclass
class EpisodeRecord:
    """One finished episode of one copy of the world; returns are extrinsic and undiscounted."""

    id: str
    copy: int
    length: int
    returns: dict[str, float]  # agent -> return; of groups that count
    module_returns: dict[str, float]  # module -> sum over the agents that it acted for
    modules: dict[str, str]  # agent -> module; {} where one was replaced by another while it played
    metrics: dict[str, float]  # the world's own
    seconds: float


def group_returns(groups: Sequence[AgentGroup], returns: Mapping[str, Any]) -> dict[str, Any]:
    """`<group>_return_mean` -> mean over the group's agents, where there are several groups: one number for all would
    say little of sides that play against each other.

    Args:
        returns: agent -> return of an episode, or of several.
    """
    counted = [group for group in groups if group.counted]
    if len(counted) == 1:
        return {}
    return {f"{g.name}_return_mean": sum(returns[agent] for agent in g.agents) / len(g.agents) for g in counted}
