"""The rows of a train batch, and how they are cut into padded sequences for recurrent modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.trees import tree_map
from marl_tune.learning.minibatches import Batch
from marl_tune.sampling.policies import Arrays
from marl_tune.sampling.recurrent_states import sequence_starts


class Layout:
    """Where the steps of each piece stand among its observations, of which there is one more than steps."""

    def __init__(self, lengths: np.ndarray):
        self.lengths = lengths
        self.seen = int(lengths.sum()) + len(lengths)  # observations
        self.steps = np.arange(lengths.sum()) + np.repeat(np.arange(len(lengths)), lengths)  # (rows,) into them
        self.last = np.cumsum(lengths) - 1  # (pieces,) into the rows


class Sequences:
    """Cuts pieces into zero-padded sequences of at most `max_seq_len` steps, each with the state at its start.

    The `_seen` members are of the pieces with their last observation, whose value is the bootstrap.
    """

    def __init__(self, pieces: list[SingleAgentEpisode], max_seq_len: int, device: Any):
        self.length, self.device = max_seq_len, device
        self._lengths = lengths = np.array([len(piece) for piece in pieces])
        self.mask_seen, self._rows_seen = self._table(lengths + 1)
        states = [sequence_starts(piece) for piece in pieces]
        self.states_seen = {
            name: torch.from_numpy(np.concatenate([s[name] for s in states])).to(device) for name in states[0]
        }
        # A piece of k x max_seq_len steps has a sequence of its last observation only: no row to train on.
        sequences = np.ceil(lengths / max_seq_len).astype(int)
        kept = [
            np.arange(total) < n
            for n, total in zip(sequences, [len(next(iter(s.values()))) for s in states], strict=True)
        ]
        self._kept = torch.from_numpy(np.concatenate(kept)).to(device)

    def _table(self, lengths: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """mask (S, L) of real steps, and for each its place in the flat rows."""
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

    def batch_seen(self, seen: Arrays) -> Batch:
        """Observations (rows + pieces, ...) -> what values are computed from, (S', L, ...)."""
        padded = tree_map(lambda rows: self._pad(rows, self.mask_seen, self._rows_seen), seen)
        return {Columns.OBS: padded, Columns.STATE_IN: self.states_seen}

    def flat_seen(self, values: torch.Tensor) -> torch.Tensor:
        """(S', L) -> (rows + pieces,)"""
        return values[self.mask_seen]

    def split(self, columns: Batch) -> Batch:
        """Columns of rows (R, ...) -> columns of sequences (S, L, ...) with mask and states."""
        mask, places = self._table(self._lengths)
        out = {name: tree_map(lambda a: self._pad(a, mask, places), value) for name, value in columns.items()}
        out[Columns.LOSS_MASK] = mask
        out[Columns.STATE_IN] = {name: value[self._kept] for name, value in self.states_seen.items()}
        return out
