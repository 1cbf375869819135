"""The recurrent states beside what an agent saw: only those at which its training sequences begin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

SEQUENCE_STARTS = "sequence_starts"  # key of SingleAgentEpisode.custom_data: a SequenceStarts


@dataclass
class SequenceStarts:
    """Where the sequences of one piece begin, its last observation's included, whose value is the bootstrap."""

    states: dict[str, np.ndarray]  # name -> (steps of the piece // max_seq_len + 1, ...)
    max_seq_len: int  # steps of a sequence, >= 1

    def next_start(self, step: int) -> int:
        """The first step from this one on at which a sequence begins."""
        return -(-step // self.max_seq_len) * self.max_seq_len

    def of_steps(self, first: int, stop: int) -> SequenceStarts:
        """Those of a part of the piece, by its steps; a sequence begins at `first`."""
        begin, end = first // self.max_seq_len, stop // self.max_seq_len + 1
        return SequenceStarts({name: rows[begin:end] for name, rows in self.states.items()}, self.max_seq_len)


def sequence_starts(piece: SingleAgentEpisode) -> dict[str, np.ndarray]:
    """State name -> (sequences of the piece with its last observation, ...).

    Raises:
        ValueError: if the piece was sampled without them.
    """
    if SEQUENCE_STARTS in piece.custom_data:
        return piece.custom_data[SEQUENCE_STARTS].states
    raise ValueError("a stateful module learns from the batched rollouts only: set cluster.rollout=batched")
