"""The global states of an environment where agents take turns, die or join.

An agent's steps are its own decisions there, so each observation needs the global state of its own time. A decision can
stay open until a later fragment. The states at which open decisions were made are kept for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from marl_tune.envs.trees import Array, joined
from marl_tune.sampling.global_states import STATE_ROWS, StateRows
from marl_tune.sampling.turn_based.decisions import TimedPiece


class TurnStates:
    """Records the global state of every step, and gives each piece the states of its observations (`state_rows`).

    >>> states = TurnStates()
    >>> states.add(np.array([[0.0], [10.0]]))  # of 2 copies, before step 0
    >>> states.add(np.array([[1.0], [11.0]]))  # before step 1
    >>> open_decisions = [np.array([-1])]  # one, made at step 1
    >>> states.end_fragment([], np.array([[2.0], [12.0]]), open_decisions)
    >>> [kept.tolist() for kept in states.get_state()]
    [[[1.0], [11.0]]]
    """

    def __init__(self) -> None:
        self._kept: list[Array] = []  # (B, ...) before the last steps of earlier fragments, oldest first
        self._present: list[Array] = []  # (B, ...) before each step of this fragment
        self._last: dict[int, dict[int, Array]] = {}
        # copy -> number of the step after the last one of an episode -> (...) state at the end of the episode

    def add(self, states: Array) -> None:
        """Adds the states (B, ...) before the next step."""
        self._present.append(states)

    def add_last(self, step: int, copies: Iterable[int], states: Array) -> None:
        """Adds the last states, rows of `states` (B, ...), of the copies whose episodes ended with this step."""
        for b in copies:
            self._last.setdefault(int(b), {})[step + 1] = states[b]

    def end_fragment(self, pieces: Sequence[TimedPiece], states: Array, open_steps: Iterable[np.ndarray]) -> None:
        """Gives the pieces of a fragment their states at its end.

        Args:
            pieces: of the fragment.
            states: (B, ...) after the last step.
            open_steps: steps of the decisions that stay open, below 0: -1 is the last step of this fragment.
        """
        rows, offset = [*self._kept, *self._present, states], len(self._kept)
        arrays: dict[int, Array] = {}
        for timed in pieces:
            last = self._last.get(timed.copy, {})
            if timed.copy not in arrays:
                of_copy = [*(row[timed.copy] for row in rows), *last.values()]
                arrays[timed.copy] = joined(*(row[None] for row in of_copy))
            index, after = timed.steps + offset, int(timed.steps[-1])
            if timed.piece.is_done and after in last:  # the row of that step is the first state of the next episode
                index[-1] = len(rows) + list(last).index(after)
            timed.piece.custom_data[STATE_ROWS] = StateRows(arrays[timed.copy], index)
        oldest = min((int(steps.min()) for steps in open_steps if len(steps)), default=0)
        self._kept = rows[len(rows) - 1 + oldest : -1]
        self._present, self._last = [], {}

    def get_state(self) -> list[Array]:
        """Returns the states that are kept for open decisions. To be called between two fragments."""
        return list(self._kept)

    def set_state(self, state: list[Array]) -> None:
        """Restores what `get_state` returned."""
        self._kept, self._present, self._last = list(state), [], {}
