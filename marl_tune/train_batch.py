"""From episode pieces to the train batch of each module, in one connector: values, GAE, intrinsic rewards, sequences.

RLlib's default learner pipeline walks through Python lists timestep by timestep, keeps a bootstrap row per piece in
the minibatches, and takes the recurrent state of every step. This one concatenates arrays, computes GAE over all
pieces at once, and needs states at sequence starts only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.evaluation.postprocessing import Postprocessing

from envs.trees import Array, joined, tree_map
from marl_tune.central_values import CentralValues
from marl_tune.results.metrics import INTRINSIC_REWARD_MEAN
from marl_tune.sampling.episode_pieces import data_of
from marl_tune.sampling.policies import Arrays
from marl_tune.sampling.recurrent_states import sequence_starts
from marl_tune.sharing.schemes import CRITIC
from marl_tune.team_rows import TeamRows
from modules.communication import TeamAPI
from modules.curiosity import IntrinsicRewardAPI

Batch = dict[str, Any]


def generalized_advantages(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    lengths: np.ndarray,
    gamma: float,
    lambda_: float,
) -> np.ndarray:
    """GAE (Schulman et al. 2016, https://arxiv.org/abs/1506.02438, eq. 16) over many pieces at once.

    Args:
        rewards, values: (rows,) of all pieces, one piece after the other.
        next_values: (rows,) V(s_{t+1}); 0 after a terminal step, the bootstrap value after the last step of a piece
            that was cut.
        lengths: (pieces,) steps of each piece; they sum to rows.

    Returns:
        (rows,) advantages.
    """
    deltas = rewards + gamma * next_values - values
    longest, pieces = int(lengths.max()), len(lengths)
    # Right-aligned in a (longest, pieces) table: the recursion starts at the last step of every piece at once.
    piece = np.repeat(np.arange(pieces), lengths)
    row = longest - (np.cumsum(lengths)[piece] - np.arange(len(deltas)))
    table = np.zeros((longest, pieces), deltas.dtype)
    table[row, piece] = deltas
    for t in range(longest - 2, -1, -1):
        table[t] += gamma * lambda_ * table[t + 1]  # A_t = delta_t + gamma lambda A_{t+1}
    return table[row, piece]


@dataclass(frozen=True)
class BatchSettings:
    """How the rewards of a module are valued."""

    gamma: float  # discount in [0, 1]
    lambda_: float  # GAE's lambda in [0, 1]
    use_critic: bool = True
    # without it every value counts as 0: advantages are discounted sums of rewards within the piece
    reward_scale: float = 1.0  # factor on the world's rewards, above 0; intrinsic rewards are added after it


class EpisodesToTrainBatch(ConnectorV2):
    """The whole learner pipeline for on-policy actor-critic learning.

    Args:
        settings: module id -> how its rewards are valued; asked for every batch.
        device: where the batch goes.

    Where there is a central critic (the module `CRITIC`), values are its own, and it has a batch beside the actors'.
    The resulting batch of an acting module holds rows (R, ...) for a stateless one; zero-padded sequences (S,
    max_seq_len, ...) with `loss_mask` and `state_in` (S, ...) for a stateful one; teams (R, N, ...) with `loss_mask`
    for a `TeamAPI`.
    """

    def __init__(self, settings: Callable[[str], BatchSettings], device: Any = "cpu"):
        super().__init__()
        self.settings, self.device = settings, device

    def __call__(self, *, rl_module: Any, episodes: list[Any], batch: Batch, metrics: Any = None, **_: Any) -> Batch:
        """Returns module id -> columns of tensors."""
        pieces: dict[str, list[SingleAgentEpisode]] = {}
        for piece in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            if len(piece):
                pieces.setdefault(piece.module_id, []).append(piece)
        central = None
        if CRITIC in rl_module and any(self.settings(module_id).use_critic for module_id in pieces):
            everyone = [piece for module_id in sorted(pieces) for piece in pieces[module_id]]
            central = CentralValues(rl_module[CRITIC].unwrapped(), everyone, self._tensor)
        # A fixed order, so that learners and repeated runs sum in the same order.
        batches = {
            m: self._module_batch(rl_module[m].unwrapped(), m, pieces[m], central, metrics) for m in sorted(pieces)
        }
        return batches if central is None else batches | {CRITIC: central.batch()}

    def _tensor(self, array: Array) -> torch.Tensor:
        if isinstance(array, torch.Tensor):  # seen by a world on a GPU
            return array.to(self.device)
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if torch.device(self.device).type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _module_batch(
        self,
        module: Any,
        module_id: str,
        pieces: list[SingleAgentEpisode],
        central: CentralValues | None,
        metrics: Any,
    ) -> Batch:
        settings = self.settings(module_id)
        layout = _Layout(np.array([len(piece) for piece in pieces]))
        columns = {Columns.ACTIONS: self._tensor(np.concatenate([data_of(piece.actions) for piece in pieces]))}
        for name in (Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS):
            columns[name] = self._tensor(np.concatenate([data_of(piece.extra_model_outputs[name]) for piece in pieces]))
        seen = tree_map(lambda *a: self._tensor(joined(*a)), *(data_of(piece.observations) for piece in pieces))
        steps = self._tensor(layout.steps)
        columns[Columns.OBS] = tree_map(lambda a: a.index_select(0, steps), seen)
        rewards = np.concatenate([data_of(piece.rewards) for piece in pieces]).astype(np.float32, copy=False)
        if settings.reward_scale != 1:
            rewards = rewards * np.float32(settings.reward_scale)
        if isinstance(module, IntrinsicRewardAPI):
            columns[Columns.NEXT_OBS] = tree_map(lambda a: a.index_select(0, steps + 1), seen)
            rewards = rewards + self._intrinsic_rewards(module, module_id, columns, metrics)
        shaped = self._shaped(module, pieces)
        if not settings.use_critic:
            values = np.zeros(layout.seen, np.float32)
        else:
            values = self._values(module, seen, shaped) if central is None else central.of(pieces)
        terminated = np.array([piece.is_terminated for piece in pieces])
        columns[Columns.REWARDS] = self._tensor(rewards)
        advantages, targets = self._advantages(rewards, values, layout, terminated, settings)
        columns[Postprocessing.ADVANTAGES] = self._tensor(advantages)
        columns[Postprocessing.VALUE_TARGETS] = self._tensor(targets)
        if central is not None and settings.use_critic:
            central.learn(pieces, targets)
        return columns if shaped is None else shaped.split(columns)

    def _shaped(self, module: Any, pieces: list[SingleAgentEpisode]) -> _Sequences | TeamRows | None:
        """How the module wants its rows: as sequences, as teams, or one by one."""
        if isinstance(module, TeamAPI):
            return TeamRows(module, pieces, self.device)
        return _Sequences(pieces, module.model_config["max_seq_len"], self.device) if module.is_stateful() else None

    @staticmethod
    def _intrinsic_rewards(module: Any, module_id: str, columns: Batch, metrics: Any) -> np.ndarray:
        """(rows,) weighted, as they are learned from."""
        raw = module.intrinsic_rewards(columns[Columns.OBS], columns[Columns.ACTIONS], columns[Columns.NEXT_OBS])
        bonus = (module.intrinsic_weight * module.update_and_normalise(raw)).cpu().numpy()
        if metrics is not None:
            metrics.log_value((module_id, INTRINSIC_REWARD_MEAN), float(bonus.mean()), window=1)
        return bonus

    @torch.no_grad()
    def _values(self, module: Any, seen: Arrays, shaped: _Sequences | TeamRows | None) -> np.ndarray:
        """(rows + pieces,) V of every observation, the last one of each piece included."""
        if shaped is None:
            return module.compute_values({Columns.OBS: seen}).cpu().numpy()
        return shaped.flat_seen(module.compute_values(shaped.batch_seen(seen))).cpu().numpy()

    def _advantages(
        self,
        rewards: np.ndarray,
        values: np.ndarray,
        layout: _Layout,
        terminated: np.ndarray,
        settings: BatchSettings,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(rows,) standardised advantages and (rows,) value targets."""
        here, after = values[layout.steps], values[layout.steps + 1]
        after[layout.last] *= ~terminated
        advantages = generalized_advantages(rewards, here, after, layout.lengths, settings.gamma, settings.lambda_)
        # As RLlib does, and Andrychowicz et al. 2021 (https://arxiv.org/abs/2006.05990) discuss: standardised over
        # the batch of the module.
        standardised = (advantages - advantages.mean()) / max(1e-4, advantages.std())
        return standardised, advantages + here


class _Layout:
    """Where the steps of each piece stand among its observations, of which there is one more than steps."""

    def __init__(self, lengths: np.ndarray):
        self.lengths = lengths
        self.seen = int(lengths.sum()) + len(lengths)  # observations
        self.steps = np.arange(lengths.sum()) + np.repeat(np.arange(len(lengths)), lengths)  # (rows,) into them
        self.last = np.cumsum(lengths) - 1  # (pieces,) into the rows


class _Sequences:
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
