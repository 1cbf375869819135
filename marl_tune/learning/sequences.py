"""Arranges the rows of a train batch as zero-padded sequences, for recurrent modules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.trees import tree_map
from marl_tune.learning.minibatches import Batch
from marl_tune.sampling.policies import Arrays
from marl_tune.sampling.recurrent_states import sequence_starts


class RowLayout:
    """Positions of the steps of several pieces. A piece has one observation more than steps.

    >>> layout = RowLayout(np.array([2, 1]))  # a piece of two steps, then a piece of one
    >>> layout.observation_of_step.tolist(), layout.last_steps.tolist()
    ([0, 1, 3], [1, 2])

    Args:
        lengths: (pieces,) steps of each piece.
    """

    def __init__(self, lengths: np.ndarray):
        self.lengths = lengths
        self.num_observations = int(lengths.sum()) + len(lengths)
        self.observation_of_step = np.arange(lengths.sum()) + np.repeat(np.arange(len(lengths)), lengths)  # (rows,)
        self.last_steps = np.cumsum(lengths) - 1  # (pieces,) row of the last step of each piece


class Sequences:
    """Cuts pieces into zero-padded sequences of `max_seq_len` steps, each with the recurrent state at its start.

    There are two sets of sequences: S of the steps, for the loss; and S' of the steps and the last observation of each
    piece, for the values. The value of the last observation is the bootstrap value.

    >>> from marl_tune.sampling.testing import small_fragment
    >>> _, pieces = small_fragment("gru")
    >>> sequences = Sequences(pieces[:1], max_seq_len=2, device="cpu")  # of one piece of 5 steps
    >>> sequences.arrange({"step": torch.tensor([1, 2, 3, 4, 5])})["step"].tolist()
    [[1, 2], [3, 4], [5, 0]]

    Args:
        pieces: of the module's agents.
        max_seq_len: steps of a sequence.
        device: of the batch.

    Raises:
        ValueError: if the pieces carry no recurrent states.
    """

    def __init__(self, pieces: Sequence[SingleAgentEpisode], max_seq_len: int, device: torch.device | str):
        self.length, self.device = max_seq_len, device
        self._lengths = lengths = np.array([len(piece) for piece in pieces])
        self._value_mask, self._value_places = self._mask_and_places(lengths + 1)  # of S'
        states = [sequence_starts(piece) for piece in pieces]
        self._value_states = {  # name -> (S', ...)
            name: torch.from_numpy(np.concatenate([s[name] for s in states])).to(device) for name in states[0]
        }
        # After k x max_seq_len steps there is a sequence of the last observation alone: it is in S', but not in S.
        sequences = np.ceil(lengths / max_seq_len).astype(int)
        kept = [
            np.arange(total) < n
            for n, total in zip(sequences, [len(next(iter(s.values()))) for s in states], strict=True)
        ]
        self._kept = torch.from_numpy(np.concatenate(kept)).to(device)

    def _mask_and_places(self, lengths: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Mask (S, L) of the steps that are no padding, and (rows,) the place of each row among all S L steps."""
        counts = np.ceil(lengths / self.length).astype(int)
        seq_lens = np.concatenate(
            [np.minimum(self.length, n - self.length * np.arange(c)) for n, c in zip(lengths, counts, strict=True)]
        )
        mask = np.arange(self.length)[None] < seq_lens[:, None]
        return torch.from_numpy(mask).to(self.device), torch.from_numpy(np.flatnonzero(mask)).to(self.device)

    def _pad(self, rows: torch.Tensor, mask: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        out = rows.new_zeros((mask.numel(), *rows.shape[1:]))
        out[places] = rows
        return out.reshape(*mask.shape, *rows.shape[1:])

    def value_batch(self, observations: Arrays) -> Batch:
        """Observations (rows + pieces, ...) -> the batch (S', L, ...) for which values are computed."""
        padded = tree_map(lambda rows: self._pad(rows, self._value_mask, self._value_places), observations)
        return {Columns.OBS: padded, Columns.STATE_IN: self._value_states}

    def flat_values(self, values: torch.Tensor) -> torch.Tensor:
        """(S', L) -> (rows + pieces,)"""
        return values[self._value_mask]

    def arrange(self, columns: Batch) -> Batch:
        """Columns of rows (R, ...) -> columns of sequences (S, L, ...), with mask and recurrent states."""
        mask, places = self._mask_and_places(self._lengths)
        out = {name: tree_map(lambda a: self._pad(a, mask, places), value) for name, value in columns.items()}
        out[Columns.LOSS_MASK] = mask
        out[Columns.STATE_IN] = {name: value[self._kept] for name, value in self._value_states.items()}
        return out
