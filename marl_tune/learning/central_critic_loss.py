"""The value loss of a central critic, and the normalisation of what it learns (MAPPO)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.algorithms.ppo.ppo import LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY, LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import VF_LOSS_KEY
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

from marl_tune.learning.central_critic import OLD_OUTPUTS, CriticSettings
from marl_tune.learning.loss_terms import explained_variance, mean_over


def critic_loss(
    outputs: Tensor,
    batch: Mapping[str, Any],
    settings: CriticSettings,
    vf_loss_coeff: float,
    vf_clip_param: float,
    with_stats: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over agents that acted of the larger of two errors: that of the value, and that of the value kept within
    clip_param of the old one (Yu et al. 2022, https://arxiv.org/abs/2103.01955, eq. 5 of the appendix).

    An error e costs e^2 up to huber_delta and delta (2 |e| - delta) beyond: twice Huber's function, whose limit for
    large deltas is then the squared error of PPO. With vf_loss_coeff = 0.5 it is the paper's loss with their weight 1.

    Args:
        outputs: (rows, A) what the critic's head puts out now.
        batch: `value_targets`, `old_outputs` and `loss_mask`, all (rows, A).
        settings: limits.
        vf_loss_coeff: weight of the loss.
        vf_clip_param: largest error that counts, after all that; inf: no limit.
        with_stats: also work out what is logged.

    Returns:
        The scalar loss, and name -> scalar without gradient (empty unless asked for). The names are RLlib's.
    """
    mean, targets = mean_over(batch[Columns.LOSS_MASK]), batch[Postprocessing.VALUE_TARGETS]
    errors = _costs(outputs - targets, settings.huber_delta)
    limited = errors
    if settings.clip_param is not None:
        old = batch[OLD_OUTPUTS]
        near = old + (outputs - old).clamp(-settings.clip_param, settings.clip_param)
        limited = torch.maximum(errors, _costs(near - targets, settings.huber_delta))
    vf_loss = mean(limited.clamp(max=vf_clip_param))
    loss = vf_loss_coeff * vf_loss
    if not with_stats:
        return loss, {}
    squared = torch.square(outputs - targets)
    stats = {
        VF_LOSS_KEY: vf_loss,
        LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY: mean(errors),
        LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY: explained_variance(targets, squared, outputs, mean),
    }
    return loss, {name: value.detach() for name, value in stats.items()}


def _costs(errors: Tensor, huber_delta: float | None) -> Tensor:
    if huber_delta is None:
        return errors.square()
    return 2.0 * torch.nn.functional.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=huber_delta)
