"""Action spaces: the distribution of each, the head that gives its inputs, and the mask over them.

| space | distribution (RLlib's) | inputs |
|---|---|---|
| Discrete(n) | categorical | n logits |
| MultiDiscrete(n_1, ...) | independent categoricals | n_1 + ... logits, one part after the other |
| Box of d floats | diagonal Gaussian | d means, d logarithms of standard deviations |
"""

import math

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchDistribution,
    TorchMultiCategorical,
)
from torch import Tensor, nn

from marl_tune.modules.parts.layers import dense

# At the start all choices have nearly equal probabilities, and a Gaussian has this deviation, in the policy's units
# (Andrychowicz et al. 2021, https://arxiv.org/abs/2006.05990).
POLICY_GAIN = 0.01
INITIAL_DEVIATION = 0.5


def check_action_space(space: gym.Space, mask_size: int | None = None) -> None:
    """Raises ValueError for a space that no head supports, or for an action mask of the wrong size."""
    starts_at_0 = not np.any(getattr(space, "start", 0))
    categorical = isinstance(space, gym.spaces.Discrete) or (
        isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.ndim == 1
    )
    gaussian = isinstance(space, gym.spaces.Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating)
    if not (gaussian or (categorical and starts_at_0)):
        raise ValueError(
            "the action space must be Discrete or MultiDiscrete, counting from 0, or a Box of floats, with one axis; "
            f"got {space}"
        )
    if mask_size is None:
        return
    if gaussian:
        raise ValueError(f"an action_mask needs Discrete or MultiDiscrete actions; got {space}")
    if mask_size != sum(categories(space)):
        raise ValueError(f"the action_mask must have {sum(categories(space))} entries for {space}; got {mask_size}")


def categories(space: gym.Space) -> list[int]:
    """Number of choices of each component of a Discrete or MultiDiscrete space."""
    return [int(space.n)] if isinstance(space, gym.spaces.Discrete) else [int(n) for n in space.nvec]


def distribution_class(space: gym.Space) -> "type[TorchDistribution]":
    """RLlib's class of the distribution over this space, with `from_logits(inputs)`."""
    if isinstance(space, gym.spaces.Discrete):
        return TorchCategorical
    if isinstance(space, gym.spaces.MultiDiscrete):
        return TorchMultiCategorical.get_partial_dist_cls(space=space, input_lens=categories(space))
    return TorchDiagGaussian


class GaussianHead(nn.Module):
    """Means that depend on the features, and one learnt deviation for each dimension that does not depend on them.

    Andrychowicz et al. 2021 find this no worse than deviations that depend on the features.
    """

    def __init__(self, in_dim: int, action_dim: int):
        super().__init__()
        self.mean = dense(in_dim, action_dim, POLICY_GAIN)
        self.log_deviation = nn.Parameter(torch.full((action_dim,), math.log(INITIAL_DEVIATION)))

    def forward(self, features: Tensor) -> Tensor:
        mean = self.mean(features)
        return torch.cat([mean, self.log_deviation.expand_as(mean)], -1)


def policy_head(space: gym.Space, in_dim: int) -> nn.Module:
    """(..., in_dim) features -> (..., inputs) of the distribution over `space`."""
    if isinstance(space, gym.spaces.Box):
        return GaussianHead(in_dim, space.shape[0])
    return dense(in_dim, sum(categories(space)), POLICY_GAIN)


def mask_logits(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Replaces the logits of forbidden actions (mask 0) by the lowest finite number.

    Their probability is then exactly 0, and entropy and KL stay finite, even in a row in which all actions are
    forbidden (padding, a dead agent).
    """
    if mask is None:
        return logits
    return torch.where(mask > 0, logits, torch.finfo(logits.dtype).min)
