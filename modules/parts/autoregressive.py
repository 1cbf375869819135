"""A policy head that chooses the components of an action one after the other, each given those before it."""

import math

import gymnasium as gym
import torch
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from torch import Tensor, nn

from marl_tune.modules.parts.actions import INITIAL_DEVIATION, POLICY_GAIN, categories, mask_logits
from marl_tune.modules.parts.layers import dense, dense_stack


class AutoregressiveHead(nn.Module):
    """p(a | s) = p(a_1 | s) p(a_2 | s, a_1) ... p(a_k | s, a_1 .. a_{k-1}), with a small network for each factor.

    Vinyals et al. 2017 (https://arxiv.org/abs/1708.04782, eq. 3) factor actions in this way. Later networks read
    earlier choices as one-hot vectors, and earlier numbers as they are.

    Args:
        space: Discrete or MultiDiscrete (a factor for each component), or a Box with one axis (for each number).
        in_dim: size of the features.
        head_dim: units of the dense layer of each factor.
        activation: after that layer.
    """

    def __init__(self, space: gym.Space, in_dim: int, head_dim: int, activation: str):
        super().__init__()
        self.continuous = isinstance(space, gym.spaces.Box)
        self.sizes = [1] * space.shape[0] if isinstance(space, gym.spaces.Box) else categories(space)
        self.scalar = not space.shape  # Discrete: actions have no axis of their own
        self.factors = nn.ModuleList(
            nn.Sequential(
                dense_stack(in_dim + sum(self.sizes[:i]), [head_dim], activation), dense(head_dim, size, POLICY_GAIN)
            )
            for i, size in enumerate(self.sizes)
        )
        if self.continuous:
            self.log_deviation = nn.Parameter(torch.full((len(self.sizes),), math.log(INITIAL_DEVIATION)))

    def forward(
        self, features: Tensor, mask: Tensor | None = None, actions: Tensor | None = None, greedy: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The inputs of every factor's distribution, given what was chosen before it, and the actions.

        Args:
            features: (..., in_dim).
            mask: (..., sum of sizes) of allowed choices, or None.
            actions: actions that were chosen before, (..., k), or (...,) for Discrete. None: they are chosen here.
            greedy: true: the mode of each factor is chosen; false: a random choice.

        Returns:
            Inputs (..., n) of RLlib's distribution over the space, and the actions. The log p of the actions under this
            distribution is the joint log p.
        """
        given = None if actions is None else (actions.unsqueeze(-1) if self.scalar else actions).unbind(-1)
        masks = [None] * len(self.sizes) if mask is None else mask.split(self.sizes, -1)
        inputs: list[Tensor] = []
        chosen: list[Tensor] = []
        known = features
        for i, factor in enumerate(self.factors):
            part = mask_logits(factor(known), masks[i])
            action = self._choose(part, i, greedy) if given is None else given[i]
            inputs.append(part)
            chosen.append(action)
            known = torch.cat([known, self._encoded(action, i, part)], -1)
        if self.continuous:
            inputs.append(self.log_deviation.expand_as(torch.cat(inputs, -1)))
        return torch.cat(inputs, -1), chosen[0] if self.scalar else torch.stack(chosen, -1)

    def _choose(self, part: Tensor, i: int, greedy: bool) -> Tensor:
        if self.continuous:
            mean = part.squeeze(-1)
            return mean if greedy else mean + self.log_deviation[i].exp() * torch.randn_like(mean)
        return part.argmax(-1) if greedy else TorchCategorical.from_logits(part).sample()

    def _encoded(self, action: Tensor, i: int, part: Tensor) -> Tensor:
        """A chosen component, as later factors read it."""
        if self.continuous:
            return action.unsqueeze(-1).to(part.dtype)
        return nn.functional.one_hot(action.long(), self.sizes[i]).to(part.dtype)
