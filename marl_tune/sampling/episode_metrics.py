"""Records of finished episodes, and the metrics that env runners report about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TypeVar, cast

import numpy as np
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EPISODE_LEN_MEAN, EPISODE_RETURN_MEAN
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from marl_tune.envs.agent_group import AgentGroup
from marl_tune.results.metrics import COPY, RETURN_MEAN_AGENT, RETURN_SUM_TEAM

LIFETIME = "_lifetime"  # end of RLlib's names of counters that are never reset
Item = TypeVar("Item")
Returns = TypeVar("Returns", float, np.ndarray)


@dataclass
class EpisodeRecord:
    """One finished episode of one copy of the environment; returns are extrinsic and undiscounted.

    >>> returns, modules = {"ant_0": 1.0, "ant_1": 2.0}, {"ant_0": "shared", "ant_1": "shared"}
    >>> record = EpisodeRecord("e1", 0, 20, returns, {"shared": 3.0}, modules, metrics={"food": 3.0}, seconds=0.1)
    >>> metrics_by_episode([record])["env_runners/food"].tolist()
    [3.0]
    """

    id: str
    copy: int
    length: int  # timesteps
    returns: dict[str, float]  # agent -> return; of groups whose rewards count
    module_returns: dict[str, float]  # module -> sum over the agents that it acted for
    modules: dict[str, str]  # agent -> module; {} if a module got other weights during the episode
    metrics: dict[str, float]  # the environment's own
    seconds: float


def by_runner(items: tuple[int, Item] | list[tuple[int, Item]]) -> list[Item]:
    """Sorts what the runners reported under one key by runner: [(number of the runner, item), …] -> [item, …]."""
    of_runners = [items] if isinstance(items, tuple) else items  # RLlib takes a lone item out of its list
    return [item for _, item in sorted(of_runners, key=itemgetter(0))]


def metrics_by_episode(records: Sequence[EpisodeRecord]) -> dict[str, np.ndarray]:
    """Returns, for each metric of which a result has the mean, its value in every episode.

    Returns:
        Name in the result -> (episodes,), NaN where an episode did not measure it; and `COPY` -> (episodes,) the copy
        of the environment that played the episode.
    """
    teams = np.array([sum(record.returns.values()) for record in records])
    names = sorted({name for record in records for name in record.metrics})
    of_runners = {EPISODE_RETURN_MEAN: teams, EPISODE_LEN_MEAN: np.array([float(record.length) for record in records])}
    of_runners |= {name: np.array([record.metrics.get(name, math.nan) for record in records]) for name in names}
    agents = np.array([len(record.returns) for record in records])
    returns = {RETURN_MEAN_AGENT: teams / agents, RETURN_SUM_TEAM: teams}
    named = {f"{ENV_RUNNER_RESULTS}/{name}": values for name, values in of_runners.items()}
    return {COPY: np.array([record.copy for record in records])} | returns | named


def forget_world(metrics: MetricsLogger, *section: str) -> None:
    """Deletes metrics of an environment that was replaced, which RLlib would report further: means of its episodes and
    counts of its agents.

    Args:
        metrics: the logger.
        section: nested keys under which the runner's metrics stand; none in a runner's own logger.
    """
    numbers = metrics.stats
    for key in section:
        numbers = numbers.get(key, {})
    for name in [name for name in numbers if not name.endswith(LIFETIME)]:
        metrics.delete(*section, name)


def group_returns(groups: Sequence[AgentGroup], returns: Mapping[str, Returns]) -> dict[str, Returns]:
    """Returns the mean return of each group under the name `<group>_return_mean`, if there are several groups.

    One number for all groups would say little if they play against each other.

    Args:
        groups: the environment's groups.
        returns: agent -> return of one episode, or (episodes,) returns.
    """
    counted = [group for group in groups if group.counted]
    if len(counted) == 1:
        return {}
    sums = {group.name: cast(Returns, sum(returns[agent] for agent in group.agents)) for group in counted}
    return {f"{group.name}_return_mean": sums[group.name] / len(group.agents) for group in counted}
