"""RLlib's episodes made without their constructor: all that goes around it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from marl_tune.envs.trees import Array, on_host, tree_map
from marl_tune.sampling.global_states import STATE_ROWS, bring_states_to_host
from marl_tune.sampling.policies import Arrays
from marl_tune.sampling.recurrent_states import SEQUENCE_STARTS, SequenceStarts


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
