"""PPO's loss for one minibatch of one module: RLlib's numbers, with as few operations as they take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ray.rllib.algorithms.ppo.ppo import (
    LEARNER_RESULTS_KL_KEY,
    LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY,
    LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY,
)
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

from marl_tune.learning.loss_terms import explained_variance, mean_over, policy_terms


@dataclass(frozen=True)
class PpoSettings:
    """The numbers of the loss during one update."""

    clip_param: float
    entropy_coeff: float
    vf_loss_coeff: float
    vf_clip_param: float  # inf: no limit
    kl_coeff: float | None  # None: no KL term


def ppo_loss(
    inputs: Tensor,
    values: Tensor | None,
    batch: Mapping[str, Any],
    dist_class: Any,
    settings: PpoSettings,
    with_stats: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate, value error and entropy bonus (Schulman et al. 2017, https://arxiv.org/abs/1707.06347, eq. 9).

    Args:
        inputs: (..., k) inputs of the action distribution now; the leading axes are rows (R,) or sequences (S, T).
        values: (...,) V now; None without a critic.
        batch: `actions`, `action_logp`, `advantages`, `value_targets`, all (..., ); `action_dist_inputs` of the time
            of sampling where there is a KL term; `loss_mask` (S, T) where rows are padding.
        dist_class: RLlib's class of the action distribution.
        settings: coefficients and limits.
        with_stats: also work out what is logged; the loss does not need all of it.

    Returns:
        The scalar loss, and name -> scalar without gradient (empty unless asked for). The names are RLlib's.
    """
    mean = mean_over(batch.get(Columns.LOSS_MASK))
    old_inputs = None if settings.kl_coeff is None else batch[Columns.ACTION_DIST_INPUTS]
    logp, entropy, kl = policy_terms(
        dist_class, inputs, batch[Columns.ACTIONS], old_inputs, with_entropy=with_stats or settings.entropy_coeff != 0
    )
    ratio = torch.exp(logp - batch[Columns.ACTION_LOGP])
    advantages = batch[Postprocessing.ADVANTAGES]
    clipped = torch.clamp(ratio, 1 - settings.clip_param, 1 + settings.clip_param)
    surrogate = mean(torch.minimum(advantages * ratio, advantages * clipped))
    loss, stats = -surrogate, {POLICY_LOSS_KEY: -surrogate}
    if values is not None:
        errors = torch.square(values - batch[Postprocessing.VALUE_TARGETS])
        limited = errors if math.isinf(settings.vf_clip_param) else errors.clamp(max=settings.vf_clip_param)
        vf_loss = mean(limited)
        loss = loss + settings.vf_loss_coeff * vf_loss
        stats |= {VF_LOSS_KEY: vf_loss, LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY: mean(errors) if with_stats else vf_loss}
    if entropy is not None and settings.entropy_coeff != 0:
        loss = loss - settings.entropy_coeff * mean(entropy)
    if kl is not None and settings.kl_coeff is not None:
        kl = mean(kl)
        loss = loss + settings.kl_coeff * kl
    if not with_stats:
        return loss, {}
    if entropy is not None:
        stats[ENTROPY_KEY] = mean(entropy)
    stats[LEARNER_RESULTS_KL_KEY] = torch.zeros(()) if kl is None else kl
    if values is not None:
        targets = batch[Postprocessing.VALUE_TARGETS]
        stats[LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY] = explained_variance(targets, errors, values, mean)
    return loss, {name: value.detach() for name, value in stats.items()}
