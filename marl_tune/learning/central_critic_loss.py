"""The value loss of a central critic (MAPPO)."""

from __future__ import annotations

import torch
from ray.rllib.algorithms.ppo.ppo import LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY, LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import VF_LOSS_KEY
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

from marl_tune.learning.central_critic import OLD_OUTPUTS, CriticSettings
from marl_tune.learning.loss_terms import explained_variance, mean_over
from marl_tune.learning.minibatches import Batch


def critic_loss(
    outputs: Tensor,
    batch: Batch,
    settings: CriticSettings,
    vf_loss_coeff: float,
    vf_clip_param: float,
    with_stats: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the clipped value loss (Yu et al. 2022, https://arxiv.org/abs/2103.01955, eq. 5 of the appendix).

    For each agent that acted there are two errors: that of the value, and that of the value clipped to within
    clip_param of the old value. The loss is the mean of the larger one.

    An error e costs e^2 up to huber_delta (d), and d (2 |e| - d) beyond it. This is twice Huber's function. For a large
    d it is the squared error of PPO. With vf_loss_coeff = 0.5 it is the paper's loss with a weight of 1.

    >>> batch = {"value_targets": torch.zeros(1, 2), "loss_mask": torch.tensor([[True, False]])}
    >>> settings = CriticSettings(lr=1e-3, normalise_values=False, huber_delta=None, clip_param=None)
    >>> critic_loss(torch.tensor([[2.0, 9.0]]), batch, settings, 0.5, float("inf"), with_stats=False)
    (tensor(2.), {})

    Args:
        outputs: (rows, A) present outputs of the critic's head.
        batch: `value_targets`, `old_outputs` and `loss_mask`, all (rows, A).
        settings: limits.
        vf_loss_coeff: weight of the loss.
        vf_clip_param: upper limit of each agent's loss; inf: no limit.
        with_stats: whether to compute what is logged.

    Returns:
        The scalar loss, and name -> scalar without gradient (empty if not `with_stats`). The names are RLlib's.
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
