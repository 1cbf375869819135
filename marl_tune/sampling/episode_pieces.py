"""Episode pieces: RLlib episodes, made without RLlib's slow constructor.

Words of this package: a *segment* is the part of one episode of one copy that lies in one fragment. A *piece* is the
experience of one agent in one segment, an RLlib `SingleAgentEpisode`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from marl_tune.envs.trees import Array, on_host, tree_map
from marl_tune.sampling.global_states import STATE_ROWS, bring_states_to_host
from marl_tune.sampling.policies import Arrays
from marl_tune.sampling.recurrent_states import SEQUENCE_STARTS, NamedStates, SequenceStarts


@dataclass
class Segment:
    """The steps [start, stop) of a fragment in one copy, all of the same episode.

    >>> segment = Segment(copy=0, start=3, stop=5, t_started=0, episode="e1", modules={"ants": ("shared", "shared")})
    >>> segment.terminated  # its episode goes on in the next fragment
    False
    """

    copy: int
    start: int
    stop: int
    t_started: int  # timestep of the episode at which the segment begins
    episode: str  # id of the episode
    modules: dict[str, tuple[str, ...]]  # group -> module id of each of its agents
    terminated: bool = False
    truncated: bool = False
    last: dict[str, Arrays] = field(default_factory=dict)
    # group -> (N, ...) observations after the last step, if the episode ended with it
    states: dict[str, list[NamedStates]] = field(default_factory=dict)
    # stateful module -> for each sequence start: state name -> (n, ...) for its agents, in the order of the groups
    last_global_state: Array | None = None
    # (...) after the last step, if the episode ended with it and global states are recorded


def lookback_buffer(data: Arrays | list[dict[str, object]]) -> InfiniteLookbackBuffer:
    """Makes an `InfiniteLookbackBuffer(data)` in a tenth of the time: it has no space, so none is computed."""
    made = InfiniteLookbackBuffer.__new__(InfiniteLookbackBuffer)
    made.data, made.lookback, made.finalized = data, 0, not isinstance(data, list)
    made._space = made._space_struct = None
    return made


class Piece(SingleAgentEpisode):
    """The steps of one agent in one segment.

    RLlib can cut a piece in two, to give several learners equal shares. Both parts keep the ids of agent and module,
    the global states and the recurrent states. RLlib's own slices lose them.

    >>> segment = Segment(copy=0, start=0, stop=3, t_started=5, episode="e1", modules={})
    >>> columns, rewards = {"actions": np.array([1, 0, 1])}, np.ones(3, np.float32)
    >>> part = make_piece(segment, "ant_0", "shared", np.zeros((4, 2)), columns, rewards)[1:]
    >>> len(part), part.t_started, part.agent_id
    (2, 6, 'ant_0')
    """

    __slots__ = ()

    def slice(self, slice_: slice, *, len_lookback_buffer: int | None = None) -> SingleAgentEpisode:
        """Returns some steps as a piece of their own; see `SingleAgentEpisode.slice`.

        If the module is recurrent, only whole training sequences are cut off: the bounds move on to the next start of a
        sequence, because no other recurrent states are stored.
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
        for key in (STATE_ROWS, SEQUENCE_STARTS):
            if key in self.custom_data:
                part.custom_data[key] = self.custom_data[key].of_steps(first, stop)
        return part


def make_piece(
    segment: Segment,
    agent: str,
    module_id: str,
    observations: Arrays,
    columns: Mapping[str, np.ndarray],
    rewards: np.ndarray,
) -> Piece:
    """Makes what `SingleAgentEpisode(...)` makes, without its checks of every length (a fifth of the sampling time).

    Args:
        segment: which steps of which episode.
        agent: id of the agent.
        module_id: id of the module that acted for it.
        observations: (T + 1, ...).
        columns: RLlib's `Columns` -> (T, ...), among them the actions.
        rewards: (T,).
    """
    outputs = {name: lookback_buffer(values) for name, values in columns.items()}
    piece = Piece.__new__(Piece)
    piece.agent_id, piece.module_id = agent, module_id
    piece.id_, piece.multi_agent_episode_id = f"{segment.episode}_{agent}", segment.episode
    piece.observations, piece.rewards = lookback_buffer(observations), lookback_buffer(rewards)
    piece.actions = outputs.pop(Columns.ACTIONS)
    # A list of its own for each piece: RLlib's connectors append to it.
    piece.infos = lookback_buffer([{}] * (segment.stop - segment.start + 1))
    piece.extra_model_outputs = outputs
    piece._observation_space = piece._action_space = None
    piece.is_terminated, piece.is_truncated = segment.terminated, segment.truncated
    piece.t_started, piece.t = segment.t_started, segment.t_started + segment.stop - segment.start
    piece._custom_data = {}
    piece._start_time = piece._last_step_time = None
    piece._last_added_observation = piece._last_added_infos = None
    return piece


def bring_to_host(pieces: Sequence[SingleAgentEpisode]) -> None:
    """Replaces observations and global states on a GPU by NumPy arrays, in place."""
    for piece in pieces:
        piece.observations.data = tree_map(on_host, piece.observations.data)
    bring_states_to_host(pieces)


def new_episode_id() -> str:
    """Returns an id that is unique over all runners."""
    return uuid.uuid4().hex


def without_lookback(buffer: InfiniteLookbackBuffer) -> Arrays:
    """Returns the arrays (T, ...) of a piece's buffer, without the earlier steps that it can look back at."""
    return tree_map(lambda a: a[buffer.lookback :], buffer.data)
