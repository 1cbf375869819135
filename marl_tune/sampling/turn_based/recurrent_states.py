"""Recurrent states at the starts of the training sequences, in an environment where agents take turns, die or join."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from marl_tune.sampling.policies import Policies
from marl_tune.sampling.recurrent_states import NamedStates, SequenceStarts

OpenStates = list[tuple[str, np.ndarray, NamedStates]]
# module id, indices into an array of places: those that the module acts for, their recurrent states


class SequenceStates:
    """Recurrent states before the decisions of one group. Only those at the start of a training sequence are stored.

    Places and pieces are numbered as in `GroupDecisions`.

    >>> from marl_tune.envs import default_config, make_world
    >>> from marl_tune.sampling.testing import small_policies
    >>> policies = small_policies(make_world(default_config("ant_colony", n_agents=2), num_envs=3), "gru")
    >>> states, first = SequenceStates("ants", policies, max_seq_len={"ants": 4}), np.array([0])
    >>> states.note_before_decisions(places=first, pieces=first, lengths=first)
    >>> states.sort()
    >>> states.starts_of_piece("ants", piece=0, length=1).states["h"].shape  # a small gru: 2 layers, 10 units
    (1, 2, 10)

    Args:
        group: name of the group.
        policies: who acts.
        max_seq_len: stateful module -> steps of a training sequence.
    """

    def __init__(self, group: str, policies: Policies, max_seq_len: Mapping[str, int]):
        self.group, self.policies, self.max_seq_len = group, policies, max_seq_len
        self._last: dict[str, NamedStates] = {}  # module -> name -> (places, ...) before each agent's last decision
        self._pieces: dict[str, list[np.ndarray]] = {}  # module -> numbers of the pieces in which sequences begin
        self._starts: dict[str, list[NamedStates]] = {}  # module -> the states at these starts

    def begin_fragment(self) -> None:
        """Forgets the sequence starts of the fragment before."""
        self._pieces.clear()
        self._starts.clear()

    def begin_with_open_decisions(self, states: OpenStates, places: np.ndarray) -> None:
        """Adds the open decisions of these places, with which a fragment begins. A sequence begins at each of them.

        The numbers of their pieces are the numbers of the places.
        """
        for module_id, which, rows in states:
            self._keep_last(module_id, places[which], rows)
            self._note(module_id, places[which], np.zeros(len(which), np.int64), rows)

    def note_before_decisions(self, places: np.ndarray, pieces: np.ndarray, lengths: np.ndarray) -> None:
        """Stores the present states of agents that act next, if a sequence begins.

        Args:
            places: (K,) of the agents.
            pieces: (K,) numbers of their pieces.
            lengths: (K,) decisions in their pieces so far.
        """
        for module_id, which, states in self.policies.states_of_agents(self.group, places):
            self._keep_last(module_id, places[which], states)
            self._note(module_id, pieces[which], lengths[which], states)

    def _keep_last(self, module_id: str, places: np.ndarray, states: NamedStates) -> None:
        last = self._last.setdefault(module_id, {})
        for name, rows in states.items():
            if name not in last:
                num_places = self.policies.assignment.module_numbers[self.group].size
                last[name] = np.zeros((num_places, *rows.shape[1:]), rows.dtype)
            last[name][places] = rows

    def note_after_last_decisions(self, places: np.ndarray, pieces: np.ndarray, lengths: np.ndarray) -> None:
        """Stores the present states of agents whose pieces end, if a sequence would begin, for the bootstrap value.

        The arguments are those of `note_before_decisions`.
        """
        for module_id, which, states in self.policies.states_of_agents(self.group, places):
            self._note(module_id, pieces[which], lengths[which], states)

    def _note(self, module_id: str, pieces: np.ndarray, lengths: np.ndarray, states: NamedStates) -> None:
        begins = np.flatnonzero(lengths % self.max_seq_len[module_id] == 0)
        if len(begins):
            self._pieces.setdefault(module_id, []).append(pieces[begins])
            self._starts.setdefault(module_id, []).append({name: rows[begins] for name, rows in states.items()})

    def before_last_decisions(self, places: np.ndarray) -> OpenStates:
        """Returns the states before the last decisions of the agents in these places, module by module."""
        found = []
        for module_id, last in self._last.items():
            number = self.policies.policy_map.module_ids.index(module_id)
            which = np.flatnonzero(self.policies.assignment.module_numbers[self.group].reshape(-1)[places] == number)
            if len(which):
                found.append((module_id, which, {name: rows[places[which]] for name, rows in last.items()}))
        return found

    def sort(self) -> None:
        """Sorts the states by piece, and by time within a piece. To be called at the end of a fragment."""
        self._sorted: dict[str, tuple[np.ndarray, NamedStates]] = {}
        for module_id, starts in self._starts.items():
            pieces = np.concatenate(self._pieces[module_id])
            order = np.argsort(pieces, kind="stable")
            states = {name: np.concatenate([each[name] for each in starts])[order] for name in starts[0]}
            self._sorted[module_id] = pieces[order], states

    def starts_of_piece(self, module_id: str, piece: int, length: int) -> SequenceStarts:
        """Returns the sequence starts of a piece with `length` decisions. To be called after `sort`."""
        max_seq_len = self.max_seq_len[module_id]
        pieces, states = self._sorted[module_id]
        first = int(np.searchsorted(pieces, piece))
        own = {name: rows[first : first + length // max_seq_len + 1] for name, rows in states.items()}
        return SequenceStarts(own, max_seq_len)
