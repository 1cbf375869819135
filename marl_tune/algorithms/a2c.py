"""A2C: one policy gradient step a train batch (Mnih et al. 2016, synchronous)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.ppo import LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY as EXPLAINED_VARIANCE
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.evaluation.postprocessing import Postprocessing

from marl_tune.config.schema.algorithm import A2cConfig
from marl_tune.learning.loss_terms import explained_variance, mean_over, policy_terms
from marl_tune.learning.minibatches import Batch
from marl_tune.learning.on_policy_learner import OnPolicyLearner


@dataclass(frozen=True)
class A2cSettings:
    """The numbers of the loss during one update."""

    entropy_coeff: float
    vf_loss_coeff: float


class A2c(OnPolicyLearner):
    """A2C's learner (https://arxiv.org/abs/1602.01783): PPO with one epoch, one minibatch and no clip (Huang et al.
    2022, https://arxiv.org/abs/2205.09123). RLlib's PPO algorithm samples the batch and asks for the update."""

    rllib_config = PPOConfig

    @staticmethod
    def training(settings: A2cConfig) -> dict[str, Any]:
        """What RLlib's PPO has to be told to make one step of the whole batch."""
        return {
            "num_epochs": 1,
            "minibatch_size": None,
            "shuffle_batch_per_epoch": False,
            "use_kl_loss": False,
            "vf_clip_param": math.inf,
        }

    def _update_settings(self, module_id: str) -> A2cSettings:
        config = self.config.get_config_for_module(module_id)
        return A2cSettings(self._entropy_left * config.entropy_coeff, config.vf_loss_coeff)

    def _policy_loss(
        self,
        inputs: torch.Tensor,
        values: torch.Tensor | None,
        batch: Batch,
        dist_class: Any,
        settings: A2cSettings,
        with_stats: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        mean = mean_over(batch.get(Columns.LOSS_MASK))
        logp, entropy, _ = policy_terms(dist_class, inputs, batch[Columns.ACTIONS], None, with_entropy=True)
        assert entropy is not None
        policy_loss, bonus = -mean(logp * batch[Postprocessing.ADVANTAGES]), mean(entropy)
        loss = policy_loss - settings.entropy_coeff * bonus
        stats = {POLICY_LOSS_KEY: policy_loss, ENTROPY_KEY: bonus}
        if values is not None:
            targets = batch[Postprocessing.VALUE_TARGETS]
            errors = torch.square(values - targets)
            stats[VF_LOSS_KEY] = mean(errors)
            loss = loss + settings.vf_loss_coeff * stats[VF_LOSS_KEY]
            if with_stats:
                stats[EXPLAINED_VARIANCE] = explained_variance(targets, errors, values, mean)
        return loss, {name: value.detach() for name, value in stats.items()} if with_stats else {}
