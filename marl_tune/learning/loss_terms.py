"""Terms that several algorithms' losses share, for one minibatch of one module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDistribution
from torch import Tensor


def mean_over(mask: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Returns the function that computes the mean over a mask; None: over all entries.

    No tensor's shape depends on the data, which would make the host wait for the GPU.

    >>> float(mean_over(torch.tensor([True, True, False]))(torch.tensor([1.0, 3.0, 99.0])))
    2.0
    """
    if mask is None:
        return torch.mean
    count = mask.sum()
    return lambda values: torch.where(mask, values, 0.0).sum() / count


def policy_terms(
    dist_class: type[TorchDistribution], inputs: Tensor, actions: Tensor, old_inputs: Tensor | None, with_entropy: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Returns the log-probability of the actions, the entropy and KL(old, new) for every row.

    A categorical distribution computes one log-softmax for all three. Other distributions are RLlib's.

    Args:
        dist_class: RLlib's class of the action distribution.
        inputs: (..., k) inputs of the distribution now; the leading axes are rows (R,) or sequences (S, T).
        actions: (...,) or (..., d).
        old_inputs: (..., k) inputs at the time of sampling; None: no KL is computed.
        with_entropy: whether to compute the entropy.

    Returns:
        Three tensors (...,); None for an entropy or KL that is not computed.
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
    """Returns 1 - Var[target - V] / Var[target], at least -1: RLlib's `explained_variance` with masked means.

    Args:
        targets: (...,).
        errors: (...,) squared errors of the values.
        values: (...,) V.
        mean: see `mean_over`.
    """
    variance = mean(torch.square(targets - mean(targets)))
    left = mean(errors) - torch.square(mean(targets - values))
    return torch.clamp(1 - left / (variance + 1e-6), min=-1.0)
