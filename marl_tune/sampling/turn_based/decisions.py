"""Collects the decisions of one agent group in an environment where agents take turns, die or join.

The steps of an agent are its own decisions there. Its next observation is what it sees when it acts next. Its reward is
all that it earns until then. While a fragment is sampled, decisions are stored as rows in the order of time, whoever
made them. At the end of the fragment they are sorted by agent and episode and cut into pieces, which are slices of the
sorted arrays. A decision is *open* while its next observation is not known; it waits for the next fragment.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.trees import Array, joined, sliced, taken, tree_map
from marl_tune.envs.world import STAYS, TERMINATED
from marl_tune.sampling.episode_pieces import Segment, make_piece
from marl_tune.sampling.policies import Arrays, Decision, Policies
from marl_tune.sampling.recurrent_states import SEQUENCE_STARTS
from marl_tune.sampling.turn_based.recurrent_states import OpenStates, SequenceStates

NO_ROW = -1


class TimedPiece(NamedTuple):
    """A piece, and the steps of the fragment at which its observations were made.

    >>> pieces = [TimedPiece((4, 1, 0), None, 1, np.array([0, 5])), TimedPiece((2, 0, 0), None, 0, np.array([-1, 3]))]
    >>> [piece.copy for piece in sorted(pieces, key=lambda piece: piece.order)]  # copy 0 ended first
    [0, 1]
    """

    order: tuple[int, int, int]
    # place among the pieces of all groups: step of its end, copy (0 if it ends before the fragment does), group
    piece: SingleAgentEpisode
    copy: int
    steps: np.ndarray
    # (T + 1,) the step before which each observation was made. Below 0 for a decision that an earlier fragment left
    # open: -1 is the last step before this fragment


@dataclass
class OpenDecisions:
    """The K open decisions of a group, at most one per agent: rows (K, ...) in ascending places.

    >>> columns = {"actions": np.array([2])}
    >>> one = OpenDecisions(np.array([0]), np.array([-1]), np.zeros((1, 4)), columns, rewards=np.zeros(1), states=[])
    >>> one.steps.tolist()  # made in the last step of the fragment before
    [-1]
    """

    places: np.ndarray
    steps: np.ndarray  # see `TimedPiece.steps`, of the next fragment
    observations: Arrays
    columns: Decision
    rewards: np.ndarray  # float64, earned so far
    states: OpenStates  # recurrent states before them


class OpenState(TypedDict):
    """State of a `GroupDecisions` between two fragments."""

    open: dict[str, Any] | None  # fields of `OpenDecisions`
    started: np.ndarray


@dataclass
class _Ends:
    """The K pieces that end with one step of a fragment, or with the fragment; arrays (K,)."""

    step: int
    pieces: np.ndarray  # their numbers
    places: np.ndarray
    lengths: np.ndarray  # decisions, at least 1
    how: np.ndarray  # `Step.left` of the agent
    started: np.ndarray  # decisions of the episode that are in earlier pieces
    modules: np.ndarray  # numbers in `PolicyMap.module_ids`
    episodes: list[str]  # ids


class GroupDecisions:
    """The decisions of one group. The place of an agent is b N + n: copy b, column n.

    In each step, the rollout calls `note_recurrent_states`, `add_decisions`, `add_rewards` and `end_agents`.

    >>> from marl_tune.envs import default_config, make_world
    >>> from marl_tune.sampling.testing import small_policies
    >>> world = make_world(default_config("classic/tictactoe"), num_envs=2)
    >>> decisions = GroupDecisions(world.groups[0], 0, small_policies(world), max_seq_len={})
    >>> decisions.begin_fragment(num_steps=5)
    >>> len(decisions.open_steps)
    0

    Args:
        group: the agents.
        number: the group's number in the environment.
        policies: who acts.
        max_seq_len: stateful module -> steps of a training sequence.
    """

    def __init__(self, group: AgentGroup, number: int, policies: Policies, max_seq_len: Mapping[str, int]):
        self.group, self.number, self.policies = group, number, policies
        self._num_places = policies.num_envs * len(group.agents)
        self._started = np.zeros(self._num_places, np.int64)  # decisions of the episode in earlier pieces
        self._open: OpenDecisions | None = None
        self._states = SequenceStates(group.name, policies, max_seq_len) if policies.states else None
        self.begin_fragment(0)

    @property
    def open_steps(self) -> np.ndarray:
        """Between two fragments: the steps of the open decisions, below 0 (`TimedPiece.steps`)."""
        return np.zeros(0, np.int64) if self._open is None else self._open.steps

    def begin_fragment(self, num_steps: int) -> None:
        """Makes room for `num_steps` timesteps. The open decisions are the first rows."""
        self._num_steps, self._num_rows, self._num_pieces = num_steps, 0, self._num_places
        self._piece = np.arange(self._num_places)  # place -> number of the piece of the agent's next decision
        self._length = np.zeros(self._num_places, np.int64)  # place -> decisions in this piece so far
        self._last = np.full(self._num_places, NO_ROW)  # place -> row of the last of them
        # Of each row. Agents without a decision (NO_ROW) write to the last element, which nobody reads.
        self._rewards = np.zeros((num_steps + 1) * self._num_places + 1)
        self._columns: list[Decision] = []
        self._seen: list[Arrays] = []  # observations before decisions, and after the last one of a piece
        self._seen_by: list[np.ndarray] = []  # number of the piece of each observation
        self._seen_at: list[np.ndarray] = []  # step before which it was made
        self._decides: list[np.ndarray] = []  # bool: whether it was made before a decision
        self._ends: list[_Ends] = []
        before = self._open
        if self._states is not None:
            self._states.begin_fragment()
        if before is not None:
            if self._states is not None:
                self._states.begin_with_open_decisions(before.states, before.places)
            self._append(before.places, before.steps, before.observations, before.columns)
            self._rewards[: self._num_rows] = before.rewards

    def note_recurrent_states(self, acting: np.ndarray) -> None:
        """Stores the recurrent states of the agents that act next, (B, N) bool, if a training sequence begins."""
        if self._states is not None:
            places = np.flatnonzero(acting)
            self._states.note_before_decisions(places, self._piece[places], self._length[places])

    def add_decisions(self, step: int, acting: np.ndarray, observations: Arrays, decision: Decision) -> None:
        """Adds the decisions of one timestep.

        Args:
            step: of the fragment.
            acting: (B, N) bool, the agents that act.
            observations: (B, N, ...) on which they decided.
            decision: column -> (B, N, ...).
        """
        places = np.flatnonzero(acting)
        if not len(places):
            return
        columns = cast(Decision, {name: self._rows(values, places) for name, values in decision.items()})
        seen = tree_map(lambda array: self._rows(array, places), observations)
        self._append(places, np.full(len(places), step), seen, columns)

    def _rows(self, array: Array, places: np.ndarray) -> Array:
        """(B, N, ...) -> (len(places), ...)"""
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

    def add_rewards(self, rewards: np.ndarray) -> None:
        """Adds rewards (B, N) to the agents' last decisions. The reward of an agent without a decision is dropped."""
        self._rewards[self._last] += rewards.reshape(-1)

    def end_agents(self, step: int, left: np.ndarray, observations: Arrays, episodes: Sequence[str]) -> None:
        """Ends the pieces of agents whose own episode ended with a timestep.

        Args:
            step: of the fragment.
            left: (B, N) `Step.left`.
            observations: (B, N, ...) after the step.
            episodes: id of the present episode of each copy.
        """
        places = np.flatnonzero(left)  # STAYS is 0
        if not len(places):
            return
        decided = places[self._length[places] > 0]
        if len(decided):
            self._see_last(step + 1, decided, observations)
            self._end(step, decided, self._length[decided], left.reshape(-1)[decided], episodes)
        self._begin_pieces(places)

    def get_state(self) -> OpenState:
        """Returns the open decisions, in plain types and arrays. To be called between two fragments."""
        waiting = None if self._open is None else vars(self._open)
        state: OpenState = {"open": waiting, "started": self._started}
        return copy.deepcopy(state)

    def set_state(self, state: OpenState) -> None:
        """Restores what `get_state` returned."""
        own = copy.deepcopy(state)
        self._open = None if own["open"] is None else OpenDecisions(**own["open"])
        self._started = own["started"]

    def begin_episodes(self, copies: np.ndarray) -> None:
        """Begins new episodes in these copies. Open decisions of the old ones are dropped."""
        places = np.arange(self._num_places).reshape(self.policies.num_envs, -1)[copies].reshape(-1)
        self._started[places] = 0
        self._begin_pieces(places)

    def _see_last(self, step: int, places: np.ndarray, observations: Arrays) -> None:
        """Adds the observations after the last decisions of pieces, and the recurrent states at that time."""
        seen = tree_map(lambda array: self._rows(array, places), observations)
        self._see(self._piece[places], np.full(len(places), step), seen, decides=False)
        if self._states is not None:
            self._states.note_after_last_decisions(places, self._piece[places], self._length[places])

    def _end(
        self, step: int, places: np.ndarray, lengths: np.ndarray, how: np.ndarray, episodes: Sequence[str]
    ) -> None:
        modules = self.policies.assignment.module_numbers[self.group.name].reshape(-1)[places]
        ids = [episodes[b] for b in (places // len(self.group.agents)).tolist()]
        self._ends.append(_Ends(step, self._piece[places], places, lengths, how, self._started[places], modules, ids))

    def _begin_pieces(self, places: np.ndarray) -> None:
        self._piece[places] = np.arange(self._num_pieces, self._num_pieces + len(places))
        self._num_pieces += len(places)
        self._length[places], self._last[places] = 0, NO_ROW

    def end_fragment(self, acting: np.ndarray, observations: Arrays, episodes: Sequence[str]) -> list[TimedPiece]:
        """Ends the fragment. The last decision of an agent that does not act next stays open.

        Args:
            acting: (B, N) bool, the agents that act next.
            observations: (B, N, ...) after the last step.
            episodes: id of the present episode of each copy.

        Returns:
            The pieces of the whole fragment, in the order of their ends.
        """
        acts = acting.reshape(-1)
        lengths = self._length - ~acts  # decisions that are not open
        known = np.flatnonzero(acts & (self._length > 0))
        if len(known):
            self._see_last(self._num_steps, known, observations)
        cut = np.flatnonzero(lengths > 0)
        if len(cut):
            self._end(self._num_steps, cut, lengths[cut], np.full(len(cut), STAYS), episodes)
        self._started[cut] += lengths[cut]
        waiting = np.flatnonzero(~acts & (self._length > 0))
        pieces = self._cut_pieces() if self._seen else []
        self._open = self._open_decisions(waiting) if len(waiting) else None
        self.begin_fragment(0)
        return pieces

    def _open_decisions(self, waiting: np.ndarray) -> OpenDecisions:
        """The last decisions of the agents in these places."""
        rows = self._last[waiting]
        seen = np.flatnonzero(np.concatenate(self._decides))[rows]
        return OpenDecisions(
            places=waiting,
            steps=np.concatenate(self._seen_at)[seen] - self._num_steps,
            observations=tree_map(lambda *arrays: taken(joined(*arrays), seen), *self._seen),
            columns={name: values[rows] for name, values in self._joined_columns().items()},
            rewards=self._rewards[rows],
            states=[] if self._states is None else self._states.before_last_decisions(waiting),
        )

    def _joined_columns(self) -> Decision:
        return {name: np.concatenate([each[name] for each in self._columns]) for name in self._columns[0]}

    def _cut_pieces(self) -> list[TimedPiece]:
        """Sorts all rows by piece, and by time within a piece, and slices them."""
        seen_by, decides = np.concatenate(self._seen_by), np.concatenate(self._decides)
        # NumPy sorts integers of at most two bytes by radix, which is faster. They suffice for most fragments.
        order = np.argsort(seen_by.astype(np.min_scalar_type(self._num_pieces)), kind="stable")
        seen = tree_map(lambda *arrays: taken(joined(*arrays), order), *self._seen)
        steps = np.concatenate(self._seen_at)[order]
        rows = (np.cumsum(decides) - 1)[order[decides[order]]]  # the row of each decision
        columns = {name: values.take(rows, axis=0) for name, values in self._joined_columns().items()}
        rewards = self._rewards[rows].astype(np.float32)
        first_seen, first = (
            _first_rows(np.bincount(by, minlength=self._num_pieces)) for by in (seen_by, seen_by[decides])
        )
        if self._states is not None:
            self._states.sort()
        pieces: list[TimedPiece] = []
        for ends in self._ends:
            at_end = ends.step == self._num_steps
            for number, place, segment, module_id in self._ended_pieces(ends):
                here = slice(first[number], first[number] + segment.stop)
                with_next = slice(first_seen[number], first_seen[number] + segment.stop + 1)
                world_copy, column = divmod(place, len(self.group.agents))
                piece = make_piece(
                    segment,
                    self.group.agents[column],
                    module_id,
                    sliced(seen, with_next),
                    {name: values[here] for name, values in columns.items()},
                    rewards[here],
                )
                if self._states is not None and module_id in self.policies.states:
                    piece.custom_data[SEQUENCE_STARTS] = self._states.starts_of_piece(module_id, number, len(piece))
                end_order = (ends.step, world_copy if at_end else 0, self.number)
                pieces.append(TimedPiece(end_order, piece, world_copy, steps[with_next]))
        return pieces

    def _ended_pieces(self, ends: _Ends) -> Iterator[tuple[int, int, Segment, str]]:
        """Yields for each piece its number, the agent's place, the segment and the module's id."""
        flags = (ends.how == TERMINATED).tolist(), ((ends.how != STAYS) & (ends.how != TERMINATED)).tolist()
        segments = [
            Segment(0, 0, length, started, episode, {}, terminated, truncated)
            for length, started, episode, terminated, truncated in zip(
                ends.lengths.tolist(), ends.started.tolist(), ends.episodes, *flags, strict=True
            )
        ]
        modules = [self.policies.policy_map.module_ids[number] for number in ends.modules.tolist()]
        return zip(ends.pieces.tolist(), ends.places.tolist(), segments, modules, strict=True)


def _first_rows(counts: np.ndarray) -> list[int]:
    """The first row of each part, in an array of all parts one after the other."""
    return (np.cumsum(counts) - counts).tolist()
