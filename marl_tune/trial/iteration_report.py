"""What a trial reports of an iteration, made from RLlib's result."""

from __future__ import annotations

import math

from ray.rllib.utils.metrics import (
    ALL_MODULES,
    ENV_RUNNER_RESULTS,
    EPISODE_AGENT_RETURN_MEAN,
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    LEARNER_RESULTS,
)
from ray.rllib.utils.typing import ResultDict

from marl_tune.results.metrics import (
    AGENT_STEPS,
    COUNT,
    CURRICULUM,
    ENV_RUNNERS,
    ENV_STEPS,
    EVALUATION,
    EVENTS,
    FREQUENCY,
    INTRINSIC_REWARD_MEAN,
    LEARNERS,
    METRICS,
    RETURN_MEAN_AGENT,
    RETURN_SUM_TEAM,
    SECONDS,
    STAGE_CHANGE,
    STEPS_PER_S,
    TABLE,
)
from marl_tune.trial.follower import Numbers

ORDER = (  # of a result's keys, and so of the columns in progress.csv; any others follow
    *(ENV_STEPS, AGENT_STEPS, EVALUATION, STEPS_PER_S, RETURN_MEAN_AGENT, RETURN_SUM_TEAM, COUNT, FREQUENCY),
    *(EVENTS, METRICS, TABLE, ENV_RUNNERS, LEARNERS, SECONDS, CURRICULUM, STAGE_CHANGE),
)


def report_of(result: ResultDict, env_steps: int, agent_steps: int, new_agent_steps: int) -> Numbers:
    """The numbers of an iteration that every trial reports.

    Args:
        result: of RLlib's `Algorithm.train`.
        env_steps: of the trial so far.
        agent_steps: of the trial so far.
        new_agent_steps: of this iteration.
    """
    sampled = result[ENV_RUNNER_RESULTS]
    learners = {m: _scalars(values) for m, values in result[LEARNER_RESULTS].items() if m != ALL_MODULES}
    return {
        ENV_STEPS: env_steps,
        AGENT_STEPS: agent_steps,
        STEPS_PER_S: new_agent_steps / result["time_this_iter_s"],
        **_returns(sampled),
        ENV_RUNNERS: _episodes(sampled, learners),
        LEARNERS: learners,
        SECONDS: {
            "sampling": _timer(result, "env_runner_sampling_timer"),
            "learning": _timer(result, "learner_update_timer"),
        },
    }


def steps_of(result: ResultDict) -> tuple[int, int]:
    """Env-steps and agent-steps that RLlib's result of an iteration counts."""
    sampled = result[ENV_RUNNER_RESULTS]
    return int(sampled["num_env_steps_sampled"]), int(sum(sampled["num_agent_steps_sampled"].values()))


def in_order(report: Numbers) -> Numbers:
    """The same report with its keys in the order `ORDER`."""
    return {key: report[key] for key in ORDER if key in report} | report


def _returns(sampled: ResultDict) -> dict[str, float]:
    """Both returns, of agents that count. Tune refuses a result without the metric; NaN: no episode has ended yet."""
    team, of_agents = float(sampled.get(EPISODE_RETURN_MEAN, math.nan)), sampled.get(EPISODE_AGENT_RETURN_MEAN, {})
    return {RETURN_MEAN_AGENT: team / len(of_agents) if of_agents else math.nan, RETURN_SUM_TEAM: team}


def _episodes(sampled: ResultDict, learners: dict[str, dict[str, float]]) -> dict[str, float]:
    """RLlib's numbers of the episodes, and the intrinsic return of an agent where there is one."""
    episodes = _scalars(sampled)
    rewards = [numbers[INTRINSIC_REWARD_MEAN] for numbers in learners.values() if INTRINSIC_REWARD_MEAN in numbers]
    if rewards and EPISODE_LEN_MEAN in episodes:
        # The learner alone knows the reward of a step: its mean is multiplied by an episode's length.
        episodes["intrinsic_return_mean"] = sum(rewards) / len(rewards) * episodes[EPISODE_LEN_MEAN]
    return episodes


def _scalars(values: ResultDict) -> dict[str, float]:
    """The plain numbers of one level of RLlib's result."""
    numbers = {}
    for name, value in values.items():
        if not isinstance(value, dict):
            try:
                numbers[name] = float(value)
            except (TypeError, ValueError):
                continue
    return numbers


def _timer(result: ResultDict, name: str) -> float:
    return float(result.get("timers", {}).get(name, math.nan))
