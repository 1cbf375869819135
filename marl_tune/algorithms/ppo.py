"""PPO: the clipped surrogate, over several epochs of minibatches (Schulman et al. 2017)."""

from __future__ import annotations

import math
from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.utils.schedules.scheduler import Scheduler

from marl_tune.algorithms.ppo_loss import PpoSettings, ppo_loss
from marl_tune.config.schema.algorithm import PpoConfig
from marl_tune.learning.minibatches import Batch
from marl_tune.learning.on_policy_learner import OnPolicyLearner


class Ppo(OnPolicyLearner, PPOTorchLearner):
    """PPO's learner (https://arxiv.org/abs/1707.06347): its loss, and RLlib's adaptive KL coefficient with its logs."""

    rllib_config = PPOConfig

    @staticmethod
    def training(settings: PpoConfig) -> dict[str, Any]:
        """The settings that are PPO's own, by the names of `rllib_config`."""
        same = ("clip_param", "use_kl_loss", "kl_coeff", "kl_target")
        batches = ("num_epochs", "minibatch_size", "shuffle_batch_per_epoch")
        limit = math.inf if settings.vf_clip_param is None else settings.vf_clip_param
        return {name: getattr(settings, name) for name in (*same, *batches)} | {"vf_clip_param": limit}

    def _policy_loss(
        self,
        inputs: torch.Tensor,
        values: torch.Tensor | None,
        batch: Batch,
        dist_class: Any,
        settings: PpoSettings,
        with_stats: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return ppo_loss(inputs, values, batch, dist_class, settings, with_stats)

    def _update_settings(self, module_id: str) -> PpoSettings:
        config = self.config.get_config_for_module(module_id)
        return PpoSettings(
            clip_param=config.clip_param,
            entropy_coeff=float(self.entropy_coeff_schedulers_per_module[module_id].get_current_value()),
            vf_loss_coeff=config.vf_loss_coeff,
            vf_clip_param=config.vf_clip_param,
            kl_coeff=float(self.curr_kl_coeffs_per_module[module_id]) if config.use_kl_loss else None,
        )

    def _loss_columns(self, module_id: str) -> tuple[str, ...]:
        columns = super()._loss_columns(module_id)
        use_kl_loss = self.config.get_config_for_module(module_id).use_kl_loss
        return (*columns, Columns.ACTION_DIST_INPUTS) if use_kl_loss else columns

    def apply_settings(self, config: Any) -> None:
        """As every learner's; RLlib's schedules of the entropy and KL coefficients begin anew."""
        super().apply_settings(config)
        # Both are filled from self.config at their first use.
        self.entropy_coeff_schedulers_per_module.clear()
        self.curr_kl_coeffs_per_module.clear()

    def anneal(self, lr: float, entropy: float) -> None:
        """As every learner's; RLlib's schedule of the entropy coefficient, which it logs, follows."""
        super().anneal(lr, entropy)
        for module_id, _ in self.module.items():
            self.entropy_coeff_schedulers_per_module[module_id] = Scheduler(
                fixed_value_or_schedule=entropy * self.config.get_config_for_module(module_id).entropy_coeff,
                framework=self.framework,
                device=self._device,
            )
