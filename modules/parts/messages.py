"""The messages of an agent, of numbers or of symbols, computed from its features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from marl_tune.modules.parts.layers import dense


class Speaker(nn.Module):
    """Features (..., in_dim) -> messages (..., channels * message_dim), one channel after the other.

    Continuous: each channel has message_dim numbers in (-1, 1), tanh(W features). Discrete: each channel has one of
    message_dim symbols, as a one-hot code,

        argmax(W features + noise)

    with Gumbel noise, so that symbol k has the probability softmax(W features)_k. The gradient is that of
    softmax((W features + noise) / temperature): straight-through Gumbel-softmax (Jang et al. 2017,
    https://arxiv.org/abs/1611.01144, section 2.2).

    Args:
        in_dim: size of the features.
        channels: messages of an agent, >= 1.
        message_dim: numbers in a message, or number of symbols.
        discrete: true: symbols; false: numbers.
    """

    def __init__(self, in_dim: int, channels: int, message_dim: int, discrete: bool):
        super().__init__()
        self.channels, self.discrete = channels, discrete
        self.say = dense(in_dim, channels * message_dim)

    def forward(self, features: Tensor, noise: Tensor | None, temperature: float) -> Tensor:
        """Computes the messages.

        Args:
            features: (..., in_dim).
            noise: Gumbel noise for the symbols, (..., channels * message_dim); None: the most likely symbols are
            chosen. temperature: of the gradient, above 0. The symbols themselves do not depend on it.
        """
        said = self.say(features)
        if not self.discrete:
            return torch.tanh(said)
        said = (said if noise is None else said + noise).unflatten(-1, (self.channels, -1))
        symbols = functional.one_hot(said.argmax(-1), said.shape[-1]).to(said.dtype)
        soft = torch.softmax(said / temperature, -1)
        return (symbols + (soft - soft.detach())).flatten(-2)  # the added term is exactly 0, and carries the gradient


def gumbel_noise(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Standard Gumbel noise, drawn by torch's own generator."""
    return -torch.empty(shape, device=device).exponential_().log()
