"""What a trial asks of everything that follows it: annealing, self-play, evaluation, breakthroughs, a curriculum.

A follower hears of every iteration, adds numbers to its result, and may change the living algorithm. The trial calls
its followers in turn and saves their states by name; see `marl_tune.trial.followers` for the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ray.rllib.utils.typing import ResultDict

State = Mapping[str, object]  # what a checkpoint keeps of a follower: plain types and arrays
Numbers = dict[str, object]  # a part of a result: nested numbers, and records such as breakthroughs


@dataclass
class Iteration:
    """One iteration that has just ended."""

    number: int  # from 1
    agent_steps: int  # of the trial so far
    sampled: ResultDict  # RLlib's result of the env runners
    report: Numbers  # the trial's result, with what earlier followers have added


class Follower(Protocol):
    """Follows one trial. Every method but `after_iteration` does nothing unless a follower defines it."""

    def begin(self) -> None:
        """Called when a new algorithm has been built, before its first iteration and before a checkpoint is loaded."""

    def begin_world(self) -> None:
        """Called when the living algorithm samples another world from now on."""

    def before_iteration(self, agent_steps: int) -> None:
        """Called before an iteration. `agent_steps`: those of the trial so far."""

    def after_iteration(self, iteration: Iteration) -> Numbers:
        """Called after an iteration. Returns what the result has of this follower."""

    def get_state(self) -> State | None:
        """Returns what a checkpoint keeps; None: nothing."""
        return None

    def set_state(self, state: State | None) -> None:
        """Continues from an earlier `get_state`. None: the checkpoint has no state of this follower."""
