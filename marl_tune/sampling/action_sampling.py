"""Samples actions from the outputs of a policy network."""

from __future__ import annotations

import math

import torch
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDistribution
from torch import Tensor


def sample_actions(dist_class: type[TorchDistribution], inputs: Tensor, explore: bool) -> tuple[Tensor, Tensor | None]:
    """Samples actions from an action distribution, or takes its mode.

    A categorical distribution (Discrete actions) has its own code here. It gives the same samples as
    `torch.distributions` and `torch.multinomial`, bit by bit. It leaves out their objects and checks, which take longer
    than a small network.

    >>> sample_actions(TorchCategorical, torch.tensor([[0.0, 5.0], [9.0, 1.0]]), explore=False)
    (tensor([1, 0]), None)

    Args:
        dist_class: RLlib's class of the action distribution.
        inputs: (R, ...) inputs of the distribution, for example logits.
        explore: sample (True) or take the mode (False).

    Returns:
        Actions (R, ...), and their log-probabilities (R,) if `explore`, else None.

    Raises:
        RuntimeError: if the logits of a categorical distribution are not finite or too large.
    """
    if dist_class is not TorchCategorical:
        dist = dist_class.from_logits(inputs)
        actions = dist.sample() if explore else dist.to_deterministic().sample()
        return actions, dist.logp(actions) if explore else None
    if not explore:
        return inputs.argmax(-1), None
    log_p = inputs - inputs.logsumexp(-1, keepdim=True)
    # torch.multinomial samples in this way, too: the action with the largest p_i / e_i, where e_i is exponential noise.
    noise = torch.empty_like(log_p).exponential_()
    actions = (torch.softmax(log_p, -1) / noise).argmax(-1)
    chosen = log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    if math.isnan(chosen.sum().item()):
        raise RuntimeError("the policy's logits are not finite: no action can be drawn")
    return actions, chosen
