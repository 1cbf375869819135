"""The recurrent states at which the training sequences of a group's agents begin, where agents take turns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from marl_tune.sampling.policies import Policies
from marl_tune.sampling.recurrent_states import SequenceStarts

States = dict[str, np.ndarray]  # name -> (K, ...)
OpenStates = list[tuple[str, np.ndarray, States]]  # module id, which of some places it acts for, the states of those


class SequenceStates:
    """States before the decisions of one group, of which only those are kept that something begins with.

    Args:
        group: name of the group; see `GroupDecisions` for its places and pieces.
        policies: who acts.
        max_seq_len: module id -> steps of a training sequence.
    """

    def __init__(self, group: str, policies: Policies, max_seq_len: Mapping[str, int]):
        self.group, self.policies, self.max_seq_len = group, policies, max_seq_len
        self._last: dict[str, States] = {}  # module -> name -> (places, ...) before the last decision of each
        self._pieces: dict[str, list[np.ndarray]] = {}  # module -> the pieces in which sequences begin
        self._starts: dict[str, list[States]] = {}  # module -> the states with which they do

    def begin_fragment(self) -> None:
        """Forgets the sequences that have begun."""
        self._pieces.clear()
        self._starts.clear()

    def go_on(self, states: OpenStates, places: np.ndarray) -> None:
        """The first rows of a fragment are open decisions of these places, made in these states: a sequence begins with
        each. The numbers of the pieces are those of the places."""
        for module_id, which, rows in states:
            self._keep_last(module_id, places[which], rows)
            self._note(module_id, places[which], np.zeros(len(which), np.int64), rows)

    def before(self, places: np.ndarray, pieces: np.ndarray, lengths: np.ndarray) -> None:
        """Notes the present states of agents that decide next, after so many decisions of their pieces."""
        for module_id, which, states in self.policies.states_of_agents(self.group, places):
            self._keep_last(module_id, places[which], states)
            self._note(module_id, pieces[which], lengths[which], states)

    def _keep_last(self, module_id: str, places: np.ndarray, states: States) -> None:
        last = self._last.setdefault(module_id, {})
        for name, rows in states.items():
            if name not in last:
                last[name] = np.zeros((self.policies.assignment.owner[self.group].size, *rows.shape[1:]), rows.dtype)
            last[name][places] = rows

    def after(self, places: np.ndarray, pieces: np.ndarray, lengths: np.ndarray) -> None:
        """Notes the present states of agents whose pieces end after so many decisions: where a sequence would begin, it
        serves the bootstrap value."""
        for module_id, which, states in self.policies.states_of_agents(self.group, places):
            self._note(module_id, pieces[which], lengths[which], states)

    def _note(self, module_id: str, pieces: np.ndarray, lengths: np.ndarray, states: States) -> None:
        begins = np.flatnonzero(lengths % self.max_seq_len[module_id] == 0)
        if len(begins):
            self._pieces.setdefault(module_id, []).append(pieces[begins])
            self._starts.setdefault(module_id, []).append({name: rows[begins] for name, rows in states.items()})

    def last_of(self, places: np.ndarray) -> OpenStates:
        """Module by module which of the places it acts for, and the states before their last decisions."""
        found = []
        for module_id, last in self._last.items():
            number = self.policies.map.module_ids.index(module_id)
            which = np.flatnonzero(self.policies.assignment.owner[self.group].reshape(-1)[places] == number)
            if len(which):
                found.append((module_id, which, {name: rows[places[which]] for name, rows in last.items()}))
        return found

    def sort(self) -> None:
        """At the end of a fragment: brings the states of each piece together, in the order of time."""
        self._sorted: dict[str, tuple[np.ndarray, States]] = {}
        for module_id, starts in self._starts.items():
            pieces = np.concatenate(self._pieces[module_id])
            order = np.argsort(pieces, kind="stable")
            states = {name: np.concatenate([each[name] for each in starts])[order] for name in starts[0]}
            self._sorted[module_id] = pieces[order], states

    def of_piece(self, module_id: str, piece: int, length: int) -> SequenceStarts:
        """Where the sequences of a piece of so many decisions begin."""
        max_seq_len = self.max_seq_len[module_id]
        pieces, states = self._sorted[module_id]
        first = int(np.searchsorted(pieces, piece))
        own = {name: rows[first : first + length // max_seq_len + 1] for name, rows in states.items()}
        return SequenceStarts(own, max_seq_len)
