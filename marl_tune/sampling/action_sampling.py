"""How actions are drawn from what a policy's network puts out."""

from __future__ import annotations

import math
from typing import Any

import torch
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from torch import Tensor


def draw(dist_class: Any, inputs: Tensor, explore: bool) -> tuple[Tensor, Tensor | None]:
    """Draws from RLlib's distributions, or takes their modes.

    Categorical ones, as Discrete actions have them, are drawn from without the objects and the checks of
    `torch.distributions` and `torch.multinomial`, which take longer than a small network: the same draws, bit by bit.

    Args:
        dist_class: RLlib's class of the distribution.
        inputs: (R, ...) what it is made of.
        explore: draw (True) or take the mode (False).

    Returns:
        Actions (R, ...), and (R,) log p where `explore`.

    Raises:
        RuntimeError: for a categorical whose logits are not finite or too large.
    """
    if dist_class is not TorchCategorical:
        dist = dist_class.from_logits(inputs)
        actions = dist.sample() if explore else dist.to_deterministic().sample()
        return actions, dist.logp(actions) if explore else None
    if not explore:
        return inputs.argmax(-1), None
    log_p = inputs - inputs.logsumexp(-1, keepdim=True)
    race = torch.empty_like(log_p).exponential_()  # as `torch.multinomial` of one draw: the largest p_i / e_i wins
    actions = (torch.softmax(log_p, -1) / race).argmax(-1)
    chosen = log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    if math.isnan(chosen.sum().item()):
        raise RuntimeError("the policy's logits are not finite: no action can be drawn")
    return actions, chosen
