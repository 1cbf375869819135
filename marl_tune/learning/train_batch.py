"""Makes the train batches of all modules from episode pieces, in one connector: values, GAE, intrinsic rewards.

RLlib's default learner pipeline goes through Python lists timestep by timestep, keeps a bootstrap row per piece in the
minibatches, and needs the recurrent state of every step. This connector concatenates arrays, computes GAE over all
pieces at once, and needs recurrent states only at the starts of sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from marl_tune.envs.trees import Array, joined, tree_map
from marl_tune.learning.advantages import generalized_advantages
from marl_tune.learning.central_critic import CentralValues
from marl_tune.learning.minibatches import Batch
from marl_tune.learning.sequences import RowLayout, Sequences
from marl_tune.learning.team_rows import TeamRows
from marl_tune.modules.communication import TeamAPI
from marl_tune.modules.curiosity import IntrinsicRewardAPI
from marl_tune.results.metrics import INTRINSIC_REWARD_MEAN
from marl_tune.sampling.episode_pieces import without_lookback
from marl_tune.sampling.policies import Arrays
from marl_tune.sharing.schemes import CRITIC


@dataclass(frozen=True)
class BatchSettings:
    """Settings of a module's advantages.

    >>> BatchSettings(gamma=0.99, lambda_=0.95).reward_scale
    1.0
    """

    gamma: float  # discount in [0, 1]
    lambda_: float  # GAE's lambda in [0, 1]
    use_critic: bool = True
    # False: every value is taken as 0, so that advantages are discounted sums of rewards within the piece
    reward_scale: float = 1.0  # factor on the environment's rewards, above 0; intrinsic rewards are added afterwards


class Arrangement(Protocol):
    """How a module's rows are arranged in its batch: as sequences, or by team."""

    def value_batch(self, observations: Arrays) -> Batch:
        """Observations (rows + pieces, ...) -> the batch for which values are computed."""

    def flat_values(self, values: torch.Tensor) -> torch.Tensor:
        """Values of this batch -> (rows + pieces,)."""

    def arrange(self, columns: Batch) -> Batch:
        """Columns of rows (rows, ...) -> columns of the train batch, with a loss mask."""


class EpisodesToTrainBatch(ConnectorV2):
    """The whole learner pipeline of on-policy actor-critic methods.

    The batch of a module that acts has rows (R, ...) if the module is stateless; zero-padded sequences (S, max_seq_len,
    ...) with `loss_mask` and `state_in` (S, ...) if it is recurrent; teams (R, N, ...) with `loss_mask` if it is a
    `TeamAPI`. If there is a central critic (the module `CRITIC`), it gives the values and has a batch of its own.

    >>> from marl_tune.sampling.testing import small_fragment
    >>> policies, pieces = small_fragment()
    >>> to_train_batch = EpisodesToTrainBatch(lambda module_id: BatchSettings(gamma=0.99, lambda_=0.95))
    >>> batches = to_train_batch(rl_module=policies.modules, episodes=pieces, batch={})
    >>> batches["ants"]["advantages"].shape  # 5 steps x 3 copies x 2 ants
    torch.Size([30])

    Args:
        settings: module id -> settings of its advantages; called for every batch.
        device: of the batch.
    """

    def __init__(self, settings: Callable[[str], BatchSettings], device: torch.device | str = "cpu"):
        super().__init__()
        self.settings, self.device = settings, device

    def __call__(
        self,
        *,
        rl_module: MultiRLModule,
        episodes: list[SingleAgentEpisode | MultiAgentEpisode],
        batch: Batch,
        metrics: MetricsLogger | None = None,
        **_: Any,
    ) -> dict[str, Batch]:
        """Returns module id -> train batch."""
        pieces: dict[str, list[SingleAgentEpisode]] = {}
        for piece in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            if len(piece):
                pieces.setdefault(piece.module_id, []).append(piece)
        central = None
        if CRITIC in rl_module and any(self.settings(module_id).use_critic for module_id in pieces):
            everyone = [piece for module_id in sorted(pieces) for piece in pieces[module_id]]
            central = CentralValues(rl_module[CRITIC].unwrapped(), everyone, self._to_tensor)
        # In a fixed order, so that all learners and repeated runs add numbers in the same order.
        batches = {
            m: self._module_batch(rl_module[m].unwrapped(), m, pieces[m], central, metrics) for m in sorted(pieces)
        }
        return batches if central is None else batches | {CRITIC: central.critic_batch()}

    def _to_tensor(self, array: Array) -> torch.Tensor:
        if isinstance(array, torch.Tensor):  # observed by an environment on a GPU
            return array.to(self.device)
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if torch.device(self.device).type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _module_batch(
        self,
        module: RLModule,
        module_id: str,
        pieces: list[SingleAgentEpisode],
        central: CentralValues | None,
        metrics: MetricsLogger | None,
    ) -> Batch:
        settings = self.settings(module_id)
        layout = RowLayout(np.array([len(piece) for piece in pieces]))
        columns = {Columns.ACTIONS: self._joined([piece.actions for piece in pieces])}
        for name in (Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS):
            columns[name] = self._joined([piece.extra_model_outputs[name] for piece in pieces])
        observations = tree_map(
            lambda *a: self._to_tensor(joined(*a)), *(without_lookback(piece.observations) for piece in pieces)
        )
        steps = self._to_tensor(layout.observation_of_step)
        columns[Columns.OBS] = tree_map(lambda a: a.index_select(0, steps), observations)
        rewards = np.concatenate([without_lookback(piece.rewards) for piece in pieces]).astype(np.float32, copy=False)
        if settings.reward_scale != 1:
            rewards = rewards * np.float32(settings.reward_scale)
        if isinstance(module, IntrinsicRewardAPI):
            columns[Columns.NEXT_OBS] = tree_map(lambda a: a.index_select(0, steps + 1), observations)
            rewards = rewards + self._intrinsic_rewards(module, module_id, columns, metrics)
        arrangement = self._arrangement(module, pieces)
        if not settings.use_critic:
            values = np.zeros(layout.num_observations, np.float32)
        elif central is None:
            values = self._values(module, observations, arrangement)
        else:
            values = central.values_for(pieces)
        terminated = np.array([piece.is_terminated for piece in pieces])
        columns[Columns.REWARDS] = self._to_tensor(rewards)
        advantages, targets = self._advantages(rewards, values, layout, terminated, settings)
        columns[Postprocessing.ADVANTAGES] = self._to_tensor(advantages)
        columns[Postprocessing.VALUE_TARGETS] = self._to_tensor(targets)
        if central is not None and settings.use_critic:
            central.add_targets(pieces, targets)
        return columns if arrangement is None else arrangement.arrange(columns)

    def _joined(self, buffers: list[InfiniteLookbackBuffer]) -> torch.Tensor:
        """The steps (rows, ...) of all pieces, one piece after the other."""
        return self._to_tensor(np.concatenate([without_lookback(buffer) for buffer in buffers]))

    def _arrangement(self, module: RLModule, pieces: list[SingleAgentEpisode]) -> Arrangement | None:
        """How the module takes its rows; None: row by row."""
        if isinstance(module, TeamAPI):
            return TeamRows(module, pieces, self.device)
        return Sequences(pieces, module.model_config["max_seq_len"], self.device) if module.is_stateful() else None

    @staticmethod
    def _intrinsic_rewards(
        module: IntrinsicRewardAPI, module_id: str, columns: Batch, metrics: MetricsLogger | None
    ) -> np.ndarray:
        """(rows,) weighted intrinsic rewards, as they are added to the rewards."""
        raw = module.intrinsic_rewards(columns[Columns.OBS], columns[Columns.ACTIONS], columns[Columns.NEXT_OBS])
        bonus = (module.intrinsic_weight * module.update_and_normalise(raw)).cpu().numpy()
        if metrics is not None:
            metrics.log_value((module_id, INTRINSIC_REWARD_MEAN), float(bonus.mean()), window=1)
        return bonus

    @torch.no_grad()
    def _values(self, module: RLModule, observations: Arrays, arrangement: Arrangement | None) -> np.ndarray:
        """(rows + pieces,) V of every observation, the last one of each piece included."""
        if arrangement is None:
            return module.compute_values({Columns.OBS: observations}).cpu().numpy()
        return arrangement.flat_values(module.compute_values(arrangement.value_batch(observations))).cpu().numpy()

    def _advantages(
        self,
        rewards: np.ndarray,
        values: np.ndarray,
        layout: RowLayout,
        terminated: np.ndarray,
        settings: BatchSettings,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(rows,) standardised advantages and (rows,) value targets."""
        before, after = values[layout.observation_of_step], values[layout.observation_of_step + 1]
        after[layout.last_steps] *= ~terminated
        advantages = generalized_advantages(rewards, before, after, layout.lengths, settings.gamma, settings.lambda_)
        # Standardised over the whole batch of the module, as in RLlib; discussed by Andrychowicz et al. 2021
        # (https://arxiv.org/abs/2006.05990).
        standardised = (advantages - advantages.mean()) / max(1e-4, advantages.std())
        return standardised, advantages + before
