"""Terms that the losses of several algorithms have in common, for one minibatch of one module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from torch import Tensor


def mean_over(mask: Tensor | None) -> Callable[[Tensor], Tensor]:
    """The mean of what the mask keeps; without a data-dependent shape, which would make a GPU wait."""
    if mask is None:
        return torch.mean
    count = mask.sum()
    return lambda values: torch.where(mask, values, 0.0).sum() / count


def policy_terms(
    dist_class: Any, inputs: Tensor, actions: Tensor, old_inputs: Tensor | None, with_entropy: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """log p(a), entropy and KL(old, new) of every row; the latter two only where they are asked for.

    A categorical distribution takes one log-softmax for all three; others are RLlib's.

    Args:
        dist_class: RLlib's class of the action distribution.
        inputs: (..., k) inputs of the distribution now; the leading axes are rows (R,) or sequences (S, T).
        actions: (...,) or (..., d).
        old_inputs: (..., k) inputs at the time of sampling; None: no KL is asked for.
        with_entropy: whether the entropy is asked for.
    """
    if dist_class is not TorchCategorical:
        dist = dist_class.from_logits(inputs)
        kl = None if old_inputs is None else dist_class.from_logits(old_inputs).kl(dist)
        return dist.logp(actions), dist.entropy() if with_entropy else None, kl
    log_p = torch.log_softmax(inputs, -1)
    logp = log_p.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)
    entropy = -(log_p.exp() * log_p).sum(-1) if with_entropy else None
    if old_inputs is None:
        return logp, entropy, None
    old = torch.log_softmax(old_inputs, -1)
    return logp, entropy, (old.exp() * (old - log_p)).sum(-1)


def explained_variance(targets: Tensor, errors: Tensor, values: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
    """1 - Var[target - V] / Var[target], at least -1 (RLlib's `explained_variance`, over the rows that count)."""
    variance = mean(torch.square(targets - mean(targets)))
    left = mean(errors) - torch.square(mean(targets - values))
    return torch.clamp(1 - left / (variance + 1e-6), min=-1.0)
