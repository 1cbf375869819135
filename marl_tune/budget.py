"""How long a trial can last, by what `stop` and `search` say."""

import math

from marl_tune.schema import SweepConfig
from marl_tune.schema_search import AshaConfig


def fragment_steps(train_batch_size: int, copies: int, agents: int) -> int:
    """Steps of each copy in one iteration: together at least a batch where so many agents of a copy act in each."""
    return math.ceil(train_batch_size / (copies * agents))


def max_iterations(sweep: SweepConfig) -> int | None:
    """The most iterations that `stop` gives a trial, by stop.iterations and stop.agent_steps; None: no such bound."""
    bounds = []
    if sweep.stop.iterations is not None:
        bounds.append(sweep.stop.iterations)
    if sweep.stop.agent_steps is not None:
        bounds.append(math.ceil(sweep.stop.agent_steps / sweep.algorithm.train_batch_size))
    return min(bounds) if bounds else None


def asha_max_t(sweep: SweepConfig) -> int | None:
    """search.max_t, or where that is null what `stop` allows in the unit search.time_attr; None: nothing says it."""
    search = sweep.search
    assert isinstance(search, AshaConfig)
    if search.max_t is not None:
        return search.max_t
    if search.time_attr == "training_iteration":
        return max_iterations(sweep)
    return sweep.stop.agent_steps if search.time_attr == "agent_steps" else None
