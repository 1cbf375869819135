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

from marl_tune.envs.trees import Array, joined, tree_map
from marl_tune.learning.advantages import generalized_advantages
from marl_tune.learning.central_critic import CentralValues
from marl_tune.learning.minibatches import Batch
from marl_tune.learning.sequences import Layout, Sequences
from marl_tune.learning.team_rows import TeamRows
from marl_tune.modules.communication import TeamAPI
from marl_tune.modules.curiosity import IntrinsicRewardAPI
from marl_tune.results.metrics import INTRINSIC_REWARD_MEAN
from marl_tune.sampling.episode_pieces import without_lookback
from marl_tune.sampling.policies import Arrays
from marl_tune.sharing.schemes import CRITIC


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
        layout = Layout(np.array([len(piece) for piece in pieces]))
        columns = {Columns.ACTIONS: self._tensor(np.concatenate([without_lookback(piece.actions) for piece in pieces]))}
        for name in (Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS):
            columns[name] = self._tensor(np.concatenate([without_lookback(piece.extra_model_outputs[name]) for piece in pieces]))
        seen = tree_map(lambda *a: self._tensor(joined(*a)), *(without_lookback(piece.observations) for piece in pieces))
        steps = self._tensor(layout.steps)
        columns[Columns.OBS] = tree_map(lambda a: a.index_select(0, steps), seen)
        rewards = np.concatenate([without_lookback(piece.rewards) for piece in pieces]).astype(np.float32, copy=False)
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

    def _shaped(self, module: Any, pieces: list[SingleAgentEpisode]) -> Sequences | TeamRows | None:
        """How the module wants its rows: as sequences, as teams, or one by one."""
        if isinstance(module, TeamAPI):
            return TeamRows(module, pieces, self.device)
        return Sequences(pieces, module.model_config["max_seq_len"], self.device) if module.is_stateful() else None

    @staticmethod
    def _intrinsic_rewards(module: Any, module_id: str, columns: Batch, metrics: Any) -> np.ndarray:
        """(rows,) weighted, as they are learned from."""
        raw = module.intrinsic_rewards(columns[Columns.OBS], columns[Columns.ACTIONS], columns[Columns.NEXT_OBS])
        bonus = (module.intrinsic_weight * module.update_and_normalise(raw)).cpu().numpy()
        if metrics is not None:
            metrics.log_value((module_id, INTRINSIC_REWARD_MEAN), float(bonus.mean()), window=1)
        return bonus

    @torch.no_grad()
    def _values(self, module: Any, seen: Arrays, shaped: Sequences | TeamRows | None) -> np.ndarray:
        """(rows + pieces,) V of every observation, the last one of each piece included."""
        if shaped is None:
            return module.compute_values({Columns.OBS: seen}).cpu().numpy()
        return shaped.flat_seen(module.compute_values(shaped.batch_seen(seen))).cpu().numpy()

    def _advantages(
        self,
        rewards: np.ndarray,
        values: np.ndarray,
        layout: Layout,
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
