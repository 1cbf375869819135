"""A fragment of experience: arrays that are filled step by step, and cut into RLlib's episodes at the end."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from envs.trees import Array, empty, joined, on_host, tree_map
from envs.world import AgentGroup, Observations
from marl_tune.sequence_starts import SEQUENCE_STARTS, SequenceStarts
from marl_tune.state_rows import STATE_ROWS, StateRows, bring_states_to_host

if TYPE_CHECKING:  # marl_tune.policy reads fragments' pieces
    from marl_tune.policy import Arrays, Decision


@dataclass
class Segment:
    """Steps [start, stop) of one copy, all of one episode."""

    copy: int
    start: int
    stop: int
    t_started: int  # episode step at which the segment begins
    episode: str  # id of the episode
    modules: dict[str, tuple[str, ...]]  # group -> module id of each of its agents
    terminated: bool = False
    truncated: bool = False
    last: dict[str, Arrays] = field(default_factory=dict)
    # group -> (N, ...): seen after the last step, where the episode ended with it
    states: dict[str, list[dict[str, np.ndarray]]] = field(default_factory=dict)
    # stateful module -> at each sequence start, state name -> (n, ...) for its agents in the order of the groups
    last_world: Array | None = None
    # (...): the state of the world after the last step, where the episode ended with it and states are recorded


class Fragment:
    """T steps of B copies: for each group and column an array (B, N, T, ...), time last so that an agent's steps lie
    side by side.

    Args:
        groups: the world's agent groups.
        num_steps: T.
        num_envs: B.
        max_seq_len: stateful module -> steps of a training sequence.
    """

    def __init__(self, groups: Sequence[AgentGroup], num_steps: int, num_envs: int, max_seq_len: Mapping[str, int]):
        self.groups, self.num_steps, self.num_envs, self.max_seq_len = groups, num_steps, num_envs, max_seq_len
        self.observations: dict[str, Arrays] = {}  # (B, N, T + 1, ...)
        self.rewards = {g.name: np.empty((num_envs, len(g.agents), num_steps), np.float32) for g in groups}
        self.columns: dict[str, dict[str, np.ndarray]] = {g.name: {} for g in groups}
        self.world: Array | None = None  # (B, T + 1, ...) states of the world, where they are recorded

    def put(self, t: int, decisions: dict[str, Decision], rewards: dict[str, np.ndarray]) -> None:
        """Writes what was done in step t, and what it was worth."""
        for group in self.groups:
            self.rewards[group.name][:, :, t] = rewards[group.name]
            columns = self.columns[group.name]
            for name, value in decisions[group.name].items():
                if name not in columns:
                    columns[name] = np.empty((*value.shape[:2], self.num_steps, *value.shape[2:]), value.dtype)
                columns[name][:, :, t] = value

    def see(self, t: int, observations: Observations) -> None:
        """Writes what is seen before step t; t = T for what is seen after the last."""
        for group in self.groups:
            seen = observations[group.name]
            if group.name not in self.observations:
                self.observations[group.name] = tree_map(self._empty_like, seen)
            tree_map(lambda store, a: _write(store, t, a), self.observations[group.name], seen)

    def see_world(self, t: int, states: Array) -> None:
        """Writes the copies' states (B, ...) before step t; t = T for those after the last."""
        if self.world is None:
            self.world = empty((len(states), self.num_steps + 1, *states.shape[1:]), states)
        self.world[:, t] = states

    def _empty_like(self, array: Array) -> Array:
        return empty((*array.shape[:2], self.num_steps + 1, *array.shape[2:]), array)

    def pieces(self, segments: Sequence[Segment]) -> list[SingleAgentEpisode]:
        """One numpy episode per agent and segment."""
        return [piece for segment in segments for piece in self._pieces(segment)]

    def _pieces(self, segment: Segment) -> list[SingleAgentEpisode]:
        pieces, place = [], dict.fromkeys(segment.states, 0)
        rows = self._state_rows(segment)
        for group in self.groups:
            for column, (agent, module_id) in enumerate(zip(group.agents, segment.modules[group.name], strict=True)):
                piece = self._piece(segment, group.name, column)
                piece.agent_id, piece.module_id = agent, module_id
                piece.id_ = f"{segment.episode}_{agent}"
                if module_id in segment.states:
                    states = _stacked(segment.states[module_id], place[module_id])
                    piece.custom_data[SEQUENCE_STARTS] = SequenceStarts(states, self.max_seq_len[module_id])
                    place[module_id] += 1
                if rows is not None:
                    piece.custom_data[STATE_ROWS] = rows
                pieces.append(piece)
        return pieces

    def _state_rows(self, segment: Segment) -> StateRows | None:
        """The states of a segment, one object for all its pieces."""
        if self.world is None:
            return None
        steps = segment.stop - segment.start
        states = self.world[segment.copy, segment.start : segment.stop + 1]
        if segment.last_world is not None:
            states = joined(states[:steps], segment.last_world[None])
        return StateRows(states, np.arange(steps + 1))

    def _piece(self, segment: Segment, group: str, column: int) -> SingleAgentEpisode:
        b, steps = segment.copy, slice(segment.start, segment.stop)
        if group in segment.last:
            seen = tree_map(
                lambda store, last: joined(store[b, column, steps], last[column, None]),
                self.observations[group],
                segment.last[group],
            )
        else:
            with_next = slice(segment.start, segment.stop + 1)
            seen = tree_map(lambda store: store[b, column, with_next], self.observations[group])
        columns = {name: array[b, column, steps] for name, array in self.columns[group].items()}
        return lean_episode(segment, seen, columns, self.rewards[group][b, column, steps])


def _write(store: Array, t: int, values: Array) -> None:
    store[:, :, t] = values


def _stacked(states: list[dict[str, np.ndarray]], place: int) -> dict[str, np.ndarray]:
    return {name: np.stack([state[name][place] for state in states]) for name in states[0]}


def buffer(data: Any) -> InfiniteLookbackBuffer:
    """`InfiniteLookbackBuffer(data)`, at a tenth of its cost: no space is worked out, for there is none."""
    made = InfiniteLookbackBuffer.__new__(InfiniteLookbackBuffer)
    made.data, made.lookback, made.finalized = data, 0, not isinstance(data, list)
    made._space = made._space_struct = None
    return made


class Piece(SingleAgentEpisode):
    """An agent's steps in one segment. Where RLlib cuts it in two, to give several learners equal shares, both parts
    still tell who acted, in which states of the world and with which memories; RLlib's own slices forget that."""

    __slots__ = ()

    def slice(self, slice_: slice, *, len_lookback_buffer: int | None = None) -> SingleAgentEpisode:
        """Steps of the piece as one of its own; see `SingleAgentEpisode.slice`.

        Of an agent with a memory only whole training sequences are cut off: the bounds move on to where the next one
        begins, since no other states are known.
        """
        starts: SequenceStarts | None = self.custom_data.get(SEQUENCE_STARTS)
        if starts is not None:
            first, stop = (min(starts.next_start(step), len(self)) for step in slice_.indices(len(self))[:2])
            slice_ = slice(first, stop)
        part = super().slice(slice_, len_lookback_buffer=len_lookback_buffer)
        part.__class__ = Piece
        part.agent_id, part.module_id = self.agent_id, self.module_id
        part.multi_agent_episode_id = self.multi_agent_episode_id
        first, stop, _ = slice_.indices(len(self))
        for beside in (STATE_ROWS, SEQUENCE_STARTS):
            if beside in self.custom_data:
                part.custom_data[beside] = self.custom_data[beside].of_steps(first, stop)
        return part


def lean_episode(
    segment: Segment, observations: Arrays, columns: dict[str, np.ndarray], rewards: np.ndarray
) -> SingleAgentEpisode:
    """What `SingleAgentEpisode(...)` makes, without its checks of every length, which took a fifth of the sampling.

    Args:
        segment: which steps of which episode.
        observations: (T + 1, ...).
        columns: RLlib's `Columns` -> (T, ...), actions among them.
        rewards: (T,).
    """
    outputs = {name: buffer(values) for name, values in columns.items()}
    piece = Piece.__new__(Piece)
    piece.multi_agent_episode_id = segment.episode
    piece.observations, piece.rewards = buffer(observations), buffer(rewards)
    piece.actions = outputs.pop(Columns.ACTIONS)
    piece.infos = buffer([{}] * (segment.stop - segment.start + 1))  # one of its own: RLlib's connectors lengthen it
    piece.extra_model_outputs = outputs
    piece._observation_space = piece._action_space = None
    piece.is_terminated, piece.is_truncated = segment.terminated, segment.truncated
    piece.t_started, piece.t = segment.t_started, segment.t_started + segment.stop - segment.start
    piece._custom_data = {}
    piece._start_time = piece._last_step_time = None
    piece._last_added_observation = piece._last_added_infos = None
    return piece


def bring_to_host(pieces: Sequence[SingleAgentEpisode]) -> None:
    """Turns what was seen on a GPU, states of the world too, into arrays of NumPy's; in place."""
    for piece in pieces:
        piece.observations.data = tree_map(on_host, piece.observations.data)
    bring_states_to_host(pieces)


def new_episode_id() -> str:
    """Unique over all runners."""
    return uuid.uuid4().hex


def data_of(buffer: InfiniteLookbackBuffer) -> Arrays:
    """A piece's arrays, (T, ...), without the steps that it only looks back at."""
    return tree_map(lambda a: a[buffer.lookback :], buffer.data)
