"""Limits gradients and refuses non-finite ones, with one look at their norms a step."""

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
    """The parameters of one optimizer, and the limit of their gradients."""

    parameters: Sequence[Parameter]  # those without a gradient do not count
    limit: float | None  # above 0; None: no limit
    by: str  # what is limited: global_norm (over all gradients), norm (of each gradient) or value (of each entry)


def clip_and_check(groups: Sequence[GradientGroup], name_of: Callable[[Parameter], str]) -> list[Tensor]:
    """Checks the gradients of several optimizers, then limits them in place.

    Returns:
        For each group the norm over all its gradients before they were limited, a scalar; 0 for none at all.

    Raises:
        NonFiniteGradientError: if any entry is NaN or infinite; no gradient has been changed then.
    """
    gradients = [[p.grad for p in group.parameters if p.grad is not None] for group in groups]
    norms = [
        torch.stack(torch._foreach_norm(each)) if each else torch.zeros(1, device=group.parameters[0].device)
        for group, each in zip(groups, gradients, strict=True)
    ]
    totals = [torch.linalg.vector_norm(each) for each in norms]
    # The only time in a step that the host waits for the device.
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
