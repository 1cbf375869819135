"""Recurrent states that are stored with an episode piece: only those at which a training sequence begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

SEQUENCE_STARTS = "sequence_starts"  # key of SingleAgentEpisode.custom_data: a SequenceStarts
NamedStates = dict[str, np.ndarray]  # name of a recurrent state -> (rows, ...)


@dataclass
class SequenceStarts:
    """The recurrent states at the starts of the training sequences of one piece.

    The last observation of a piece counts, too. Its value is the bootstrap value.

    >>> starts = SequenceStarts({"h": np.array([[0.0], [3.0], [6.0]])}, max_seq_len=3)  # of a piece of 7 steps
    >>> starts.next_start(4)
    6
    >>> starts.of_steps(3, 7).states["h"].tolist()
    [[3.0], [6.0]]
    """

    states: NamedStates  # name -> (steps of the piece // max_seq_len + 1, ...)
    max_seq_len: int  # steps of a sequence, >= 1

    def next_start(self, step: int) -> int:
        """Returns the first step >= `step` at which a sequence begins."""
        return -(-step // self.max_seq_len) * self.max_seq_len

    def of_steps(self, first: int, stop: int) -> SequenceStarts:
        """Returns those of the steps [first, stop); a sequence must begin at `first`."""
        begin, end = first // self.max_seq_len, stop // self.max_seq_len + 1
        return SequenceStarts({name: rows[begin:end] for name, rows in self.states.items()}, self.max_seq_len)


def sequence_starts(piece: SingleAgentEpisode) -> NamedStates:
    """Returns the states of a piece: name -> (sequences of the piece with its last observation, ...).

    Raises:
        ValueError: if the piece was sampled without them.
    """
    if SEQUENCE_STARTS in piece.custom_data:
        return piece.custom_data[SEQUENCE_STARTS].states
    raise ValueError("a stateful module learns from the batched rollouts only: set cluster.rollout=batched")
