"""The states of a world where agents take turns, die or join: each once a step of a copy, found by decision.

An agent's steps are its own decisions there, and a decision may wait for its outcome until a later fragment; the states
at which those were made are kept for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from marl_tune.envs.trees import Array, joined
from marl_tune.sampling.global_states import STATE_ROWS, StateRows
from marl_tune.sampling.turn_based.decisions import Cut


class TurnStates:
    """What pieces are given as their states (`state_rows`)."""

    def __init__(self) -> None:
        self._kept: list[Array] = []  # (B, ...) before the last steps of earlier fragments, oldest first
        self._seen: list[Array] = []  # (B, ...) before each step of this one
        self._last: dict[int, dict[int, Array]] = {}  # copy -> step after which an episode ended, plus 1 -> (...)

    def see(self, states: Array) -> None:
        """Notes the states (B, ...) before the next step."""
        self._seen.append(states)

    def end(self, step: int, copies: Iterable[int], states: Array) -> None:
        """Notes the last states, among (B, ...), of copies whose episodes ended with a step."""
        for b in copies:
            self._last.setdefault(int(b), {})[step + 1] = states[b]

    def hand_over(self, cuts: Sequence[Cut], states: Array, waiting: Iterable[np.ndarray]) -> None:
        """Gives the pieces of a fragment their rows at its end.

        Args:
            cuts: the pieces.
            states: (B, ...) after the last step.
            waiting: the steps of the decisions that stay open, counted back from 0, the end of this fragment.
        """
        rows, offset = [*self._kept, *self._seen, states], len(self._kept)
        arrays: dict[int, Array] = {}
        for cut in cuts:
            last = self._last.get(cut.copy, {})
            if cut.copy not in arrays:
                arrays[cut.copy] = joined(*(row[None] for row in (*(row[cut.copy] for row in rows), *last.values())))
            index, after = cut.steps + offset, int(cut.steps[-1])
            if cut.piece.is_done and after in last:  # another episode's first state stands at that step
                index[-1] = len(rows) + list(last).index(after)
            cut.piece.custom_data[STATE_ROWS] = StateRows(arrays[cut.copy], index)
        oldest = min((int(steps.min()) for steps in waiting if len(steps)), default=0)
        self._kept = rows[len(rows) - 1 + oldest : -1]
        self._seen, self._last = [], {}

    def get_state(self) -> list[Array]:
        """Between two fragments: what is kept for open decisions, for `set_state`."""
        return list(self._kept)

    def set_state(self, state: list[Array]) -> None:
        """Goes on from where `get_state` was called."""
        self._kept, self._seen, self._last = list(state), [], {}
