"""What the agents of a group have decided in a world where agents take turns, die or join, until it is handed over for
learning.

There the steps of an agent are its own decisions: what it sees next is what it sees when it acts next, and what it
earns is all that comes in between. Decisions are rows in the order of time, whoever made them; only at the end of a
fragment are they sorted by agent and episode, and cut into pieces, which are slices of the sorted arrays. A decision
whose outcome is open then waits for the next fragment.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.trees import Array, joined, sliced, taken, tree_map
from marl_tune.envs.world import STAYS, TERMINATED
from marl_tune.sampling.episode_pieces import Segment, lean_episode
from marl_tune.sampling.policies import Arrays, Decision, Policies
from marl_tune.sampling.recurrent_states import SEQUENCE_STARTS
from marl_tune.sampling.turn_based.recurrent_states import OpenStates, SequenceStates

NO_ROW = -1


class Cut(NamedTuple):
    """A piece, and where in the fragment its decisions were made."""

    order: tuple[int, int, int]  # of all groups' pieces: step of their end; at the end of the fragment by copy; group
    piece: SingleAgentEpisode
    copy: int
    steps: np.ndarray
    # (T + 1,) the step before which each observation was made, the last one included; below 0 for a decision that an
    # earlier fragment left open: so many steps before this one's start


@dataclass
class OpenDecisions:
    """The decisions of a group whose outcome is open, at most one an agent: rows (K, ...) in ascending places."""

    places: np.ndarray
    steps: np.ndarray  # see `Cut.steps`, of the next fragment
    observations: Arrays
    columns: Decision
    rewards: np.ndarray  # float64, earned so far
    states: OpenStates  # before them


@dataclass
class _Ends:
    """Pieces that end with one step of a fragment, or with the fragment; arrays (K,)."""

    step: int
    pieces: np.ndarray  # their numbers
    places: np.ndarray
    lengths: np.ndarray  # decisions, at least 1
    how: np.ndarray  # `Step.left` of the agent
    started: np.ndarray  # decisions of the episode that were handed over before
    modules: np.ndarray  # numbers in `PolicyMap.module_ids`
    episodes: list[str]  # ids


class GroupDecisions:
    """The decisions of one group. The agent of copy b in column n is the place `b N + n`.

    Args:
        group: the agents.
        number: of the group among the world's.
        policies: who acts.
        max_seq_len: module id -> steps of a training sequence, for stateful modules.
    """

    def __init__(self, group: AgentGroup, number: int, policies: Policies, max_seq_len: Mapping[str, int]):
        self.group, self.number, self.policies = group, number, policies
        self._num_places = policies.num_envs * len(group.agents)
        self._started = np.zeros(self._num_places, np.int64)  # decisions of the episode that were handed over
        self._open: OpenDecisions | None = None
        self._states = SequenceStates(group.name, policies, max_seq_len) if policies.states else None
        self.begin_fragment(0)

    @property
    def open_steps(self) -> np.ndarray:
        """Between two fragments: the steps of the open decisions, below 0 (`Cut.steps`)."""
        return np.zeros(0, np.int64) if self._open is None else self._open.steps

    def begin_fragment(self, num_steps: int) -> None:
        """Makes room for so many steps of the world; the open decisions are its first rows."""
        self._num_steps, self._num_rows, self._num_pieces = num_steps, 0, self._num_places
        self._piece = np.arange(self._num_places)  # the piece that an agent's next decision is of
        self._length = np.zeros(self._num_places, np.int64)  # its decisions so far
        self._last = np.full(self._num_places, NO_ROW)  # the row of the last of these
        self._rewards = np.zeros((num_steps + 1) * self._num_places + 1)  # of each row; the last element is nobody's
        self._columns: list[Decision] = []
        self._seen: list[Arrays] = []  # before decisions, and after the last one of a piece
        self._seen_by: list[np.ndarray] = []  # the piece of each of these
        self._seen_at: list[np.ndarray] = []  # the step before which
        self._decides: list[np.ndarray] = []  # whether it is before a decision, bool
        self._ends: list[_Ends] = []
        before = self._open
        if self._states is not None:
            self._states.begin_fragment()
        if before is not None:
            if self._states is not None:
                self._states.go_on(before.states, before.places)
            self._append(before.places, before.steps, before.observations, before.columns)
            self._rewards[: self._num_rows] = before.rewards

    def note_states(self, acting: np.ndarray) -> None:
        """Keeps the recurrent states of those that act next, (B, N) bool, where a training sequence may begin."""
        if self._states is not None:
            places = np.flatnonzero(acting)
            self._states.before(places, self._piece[places], self._length[places])

    def add(self, step: int, acting: np.ndarray, observations: Arrays, decision: Decision) -> None:
        """What those that act, (B, N) bool, saw (B, N, ...) and have decided (B, N, ...) in a step of the fragment."""
        places = np.flatnonzero(acting)
        if not len(places):
            return
        columns = {name: self._rows(values, places) for name, values in decision.items()}
        seen = tree_map(lambda array: self._rows(array, places), observations)
        self._append(places, np.full(len(places), step), seen, columns)

    def _rows(self, array: Array, places: np.ndarray) -> Array:
        """(B, N, ...) -> (len(places), ...)."""
        flat = array.reshape(self._num_places, *array.shape[2:])
        return flat if len(places) == self._num_places else taken(flat, places)

    def _append(self, places: np.ndarray, steps: np.ndarray, seen: Arrays, columns: Decision) -> None:
        self._see(self._piece[places], steps, seen, decides=True)
        self._columns.append(columns)
        self._last[places] = np.arange(self._num_rows, self._num_rows + len(places))
        self._num_rows += len(places)
        self._length[places] += 1

    def _see(self, pieces: np.ndarray, steps: np.ndarray, seen: Arrays, decides: bool) -> None:
        self._seen.append(seen)
        self._seen_by.append(pieces)
        self._seen_at.append(steps)
        self._decides.append(np.full(len(pieces), decides))

    def pay(self, rewards: np.ndarray) -> None:
        """Adds what agents earned (B, N) to their last decisions; an agent that has made none earns for nothing."""
        self._rewards[self._last] += rewards.reshape(-1)

    def leave(self, step: int, left: np.ndarray, observations: Arrays, episodes: Sequence[str]) -> None:
        """Ends the pieces of agents that have ended with a step: `Step.left` (B, N), what was seen after it, (B, N,
        ...), and the ids of the copies' present episodes."""
        places = np.flatnonzero(left)  # STAYS is 0
        if not len(places):
            return
        decided = places[self._length[places] > 0]
        if len(decided):
            self._see_last(step + 1, decided, observations)
            self._end(step, decided, self._length[decided], left.reshape(-1)[decided], episodes)
        self._begin_pieces(places)

    def get_state(self) -> dict[str, Any]:
        """Between two fragments: what is open, for `set_state`, in plain types and arrays."""
        waiting = None if self._open is None else vars(self._open)
        return copy.deepcopy({"open": waiting, "started": self._started})

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where `get_state` was called."""
        own = copy.deepcopy(state)
        self._open = None if own["open"] is None else OpenDecisions(**own["open"])
        self._started = own["started"]

    def begin_episodes(self, copies: np.ndarray) -> None:
        """New episodes in these copies; what was not handed over is dropped."""
        places = np.arange(self._num_places).reshape(self.policies.num_envs, -1)[copies].reshape(-1)
        self._started[places] = 0
        self._begin_pieces(places)

    def _see_last(self, step: int, places: np.ndarray, observations: Arrays) -> None:
        """What agents see after the last decision of their pieces, and the states that they see it in."""
        seen = tree_map(lambda array: self._rows(array, places), observations)
        self._see(self._piece[places], np.full(len(places), step), seen, decides=False)
        if self._states is not None:
            self._states.after(places, self._piece[places], self._length[places])

    def _end(
        self, step: int, places: np.ndarray, lengths: np.ndarray, how: np.ndarray, episodes: Sequence[str]
    ) -> None:
        modules = self.policies.assignment.owner[self.group.name].reshape(-1)[places]
        ids = [episodes[b] for b in (places // len(self.group.agents)).tolist()]
        self._ends.append(_Ends(step, self._piece[places], places, lengths, how, self._started[places], modules, ids))

    def _begin_pieces(self, places: np.ndarray) -> None:
        self._piece[places] = np.arange(self._num_pieces, self._num_pieces + len(places))
        self._num_pieces += len(places)
        self._length[places], self._last[places] = 0, NO_ROW

    def cut(self, acting: np.ndarray, observations: Arrays, episodes: Sequence[str]) -> list[Cut]:
        """Ends the fragment: of those that act next, (B, N) bool, all decisions are handed over, of others all but the
        last, which stays open.

        Returns:
            The pieces of the whole fragment, in order.
        """
        acts = acting.reshape(-1)
        lengths = self._length - ~acts  # whose outcome is known
        known = np.flatnonzero(acts & (self._length > 0))
        if len(known):
            self._see_last(self._num_steps, known, observations)
        cut = np.flatnonzero(lengths > 0)
        if len(cut):
            self._end(self._num_steps, cut, lengths[cut], np.full(len(cut), STAYS), episodes)
        self._started[cut] += lengths[cut]
        waiting = np.flatnonzero(~acts & (self._length > 0))
        pieces = self._pieces() if self._seen else []
        self._open = self._opened(waiting) if len(waiting) else None
        self.begin_fragment(0)
        return pieces

    def _opened(self, waiting: np.ndarray) -> OpenDecisions:
        """The last decisions of the agents in these places."""
        rows = self._last[waiting]
        seen = np.flatnonzero(np.concatenate(self._decides))[rows]
        return OpenDecisions(
            places=waiting,
            steps=np.concatenate(self._seen_at)[seen] - self._num_steps,
            observations=tree_map(lambda *arrays: taken(joined(*arrays), seen), *self._seen),
            columns={name: values[rows] for name, values in self._joined_columns().items()},
            rewards=self._rewards[rows],
            states=[] if self._states is None else self._states.last_of(waiting),
        )

    def _joined_columns(self) -> Decision:
        return {name: np.concatenate([each[name] for each in self._columns]) for name in self._columns[0]}

    def _pieces(self) -> list[Cut]:
        """Sorts all rows by piece, and by time within each, and slices them."""
        seen_by, decides = np.concatenate(self._seen_by), np.concatenate(self._decides)
        # Numbers of two bytes, of which there are enough mostly, are sorted by radix.
        order = np.argsort(seen_by.astype(np.min_scalar_type(self._num_pieces)), kind="stable")
        seen = tree_map(lambda *arrays: taken(joined(*arrays), order), *self._seen)
        steps = np.concatenate(self._seen_at)[order]
        rows = (np.cumsum(decides) - 1)[order[decides[order]]]  # the row of each decision
        columns = {name: values.take(rows, axis=0) for name, values in self._joined_columns().items()}
        rewards = self._rewards[rows].astype(np.float32)
        first_seen, first = (_starts(np.bincount(by, minlength=self._num_pieces)) for by in (seen_by, seen_by[decides]))
        if self._states is not None:
            self._states.sort()
        cuts: list[Cut] = []
        for ends in self._ends:
            at_end = ends.step == self._num_steps
            for number, place, segment, module_id in self._ended(ends):
                here = slice(first[number], first[number] + segment.stop)
                with_next = slice(first_seen[number], first_seen[number] + segment.stop + 1)
                piece = lean_episode(
                    segment,
                    sliced(seen, with_next),
                    {name: values[here] for name, values in columns.items()},
                    rewards[here],
                )
                world_copy, column = divmod(place, len(self.group.agents))
                self._label(piece, self.group.agents[column], module_id, number)
                cuts.append(
                    Cut((ends.step, world_copy if at_end else 0, self.number), piece, world_copy, steps[with_next])
                )
        return cuts

    def _ended(self, ends: _Ends) -> Iterator[tuple[int, int, Segment, str]]:
        """Per piece its number, place, segment and module."""
        flags = (ends.how == TERMINATED).tolist(), ((ends.how != STAYS) & (ends.how != TERMINATED)).tolist()
        segments = [
            Segment(0, 0, length, started, episode, {}, terminated, truncated)
            for length, started, episode, terminated, truncated in zip(
                ends.lengths.tolist(), ends.started.tolist(), ends.episodes, *flags, strict=True
            )
        ]
        modules = [self.policies.map.module_ids[number] for number in ends.modules.tolist()]
        return zip(ends.pieces.tolist(), ends.places.tolist(), segments, modules, strict=True)

    def _label(self, piece: SingleAgentEpisode, agent: str, module_id: str, number: int) -> None:
        piece.agent_id, piece.module_id = agent, module_id
        piece.id_ = f"{piece.multi_agent_episode_id}_{agent}"
        if self._states is not None and module_id in self.policies.states:
            piece.custom_data[SEQUENCE_STARTS] = self._states.of_piece(module_id, number, len(piece))


def _starts(counts: np.ndarray) -> list[int]:
    """Where each part begins in an array of all of them."""
    return (np.cumsum(counts) - counts).tolist()
