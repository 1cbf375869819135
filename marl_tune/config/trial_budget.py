"""How much a trial samples in an iteration, and how long it can last, by what its settings say."""

import math

from marl_tune.config.schema.search import AshaConfig
from marl_tune.config.schema.sweep import SweepConfig


def num_copies(sweep: SweepConfig) -> int:
    """Copies of the world that a trial steps, in all its env runners."""
    return sweep.cluster.num_envs_per_env_runner * max(1, sweep.cluster.num_env_runners)


def fragment_length(sweep: SweepConfig, agents: float) -> int:
    """Steps of each copy in one iteration: together at least `algorithm.train_batch_size` agent-steps where so many
    agents of a copy act in each step, on average."""
    steps = sweep.algorithm.train_batch_size / (num_copies(sweep) * agents)
    return math.ceil(round(steps, 6))  # 400 / (5 x 5.3333) are 15 steps, not the 16 that floats make of it


def counted_batch(sweep: SweepConfig, agents: float, least: int) -> int:
    """What RLlib counts as a batch, a learner, where not all agents act in all steps: what every fragment is sure to
    hold, which is the steps of the `least` agents that act in each step, or where there is none the world's steps."""
    return fragment_length(sweep, agents) * num_copies(sweep) * max(1, least) // max(1, sweep.cluster.num_learners)


def max_iterations(sweep: SweepConfig) -> int | None:
    """The most iterations that `stop` gives a trial, by stop.iterations and stop.agent_steps; None: no such bound."""
    last = last_agent_step(sweep)
    return None if last is None else math.ceil(last / sweep.algorithm.train_batch_size)


def last_agent_step(sweep: SweepConfig) -> int | None:
    """The agent-steps at which `stop` ends a trial, by stop.agent_steps and stop.iterations; None: no such bound."""
    iterations = None if sweep.stop.iterations is None else sweep.stop.iterations * sweep.algorithm.train_batch_size
    return min((bound for bound in (iterations, sweep.stop.agent_steps) if bound is not None), default=None)


def asha_max_t(sweep: SweepConfig) -> int | None:
    """search.max_t, or where that is null what `stop` allows in the unit search.time_attr; None: nothing says it."""
    search = sweep.search
    assert isinstance(search, AshaConfig)
    if search.max_t is not None:
        return search.max_t
    if search.time_attr == "training_iteration":
        return max_iterations(sweep)
    return sweep.stop.agent_steps if search.time_attr == "agent_steps" else None
