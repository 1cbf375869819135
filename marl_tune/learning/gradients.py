"""Clips gradients and refuses non-finite ones. The host waits for the device only once per step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter


class NonFiniteGradientError(FloatingPointError):
    """A gradient became NaN or infinite; the message names the module and the parameters."""


@dataclass(frozen=True)
class GradientGroup:
    """The parameters of one optimizer, and the limit of their gradients.

    >>> weight = Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_and_check([GradientGroup([weight], limit=1.0, by="global_norm")], name_of=lambda parameter: "weight")
    [tensor(5.)]
    >>> weight.grad
    tensor([0.6000, 0.8000])
    """

    parameters: Sequence[Parameter]  # those without a gradient are skipped
    limit: float | None  # above 0; None: no limit
    by: str  # what is limited: global_norm (over all gradients), norm (of each gradient) or value (of each entry)


def clip_and_check(groups: Sequence[GradientGroup], name_of: Callable[[Parameter], str]) -> list[Tensor]:
    """Checks the gradients of several optimizers, then clips them in place.

    Args:
        groups: one for each optimizer.
        name_of: gives the name of a parameter, for the error.

    Returns:
        For each group a scalar: the norm over all its gradients before clipping; 0 if it has no gradients.

    Raises:
        NonFiniteGradientError: if an entry is NaN or infinite. No gradient has been changed then.
    """
    gradients = [[p.grad for p in group.parameters if p.grad is not None] for group in groups]
    norms = [
        torch.stack(torch._foreach_norm(each)) if each else torch.zeros(1, device=group.parameters[0].device)
        for group, each in zip(groups, gradients, strict=True)
    ]
    totals = [torch.linalg.vector_norm(each) for each in norms]
    # Only here does the host wait for the device.
    if not torch.isfinite(torch.stack(totals)).all():
        bad = [name_of(p) for group in groups for p in group.parameters if _overflows(p)]
        raise NonFiniteGradientError(f"non-finite gradient in {', '.join(bad)}")
    for group, each, norms_of, total in zip(groups, gradients, norms, totals, strict=True):
        if group.limit is not None and each:
            _limit(each, group.limit, group.by, norms_of, total)
    return totals


def _overflows(parameter: Parameter) -> bool:
    return parameter.grad is not None and not torch.isfinite(torch.linalg.vector_norm(parameter.grad))


def _limit(gradients: list[Tensor], limit: float, by: str, norms: Tensor, total: Tensor) -> None:
    if by == "value":
        torch._foreach_clamp_min_(gradients, -limit)
        torch._foreach_clamp_max_(gradients, limit)
    elif by == "norm":
        torch._foreach_mul_(gradients, list((limit / norms.clamp_min(limit)).unbind()))
    else:
        torch._foreach_mul_(gradients, limit / total.clamp_min(limit))
