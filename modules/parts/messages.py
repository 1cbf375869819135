"""What an agent says: its features as messages of numbers or of symbols."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from marl_tune.modules.parts.layers import dense


class Speaker(nn.Module):
    """Features (..., in_dim) -> messages (..., channels * message_dim), one after the other.

    Continuous: message_dim numbers in (-1, 1) a channel, tanh(W features). Discrete: one of message_dim symbols a
    channel, as a one-hot code,

        argmax(W features + noise)

    where the noise is Gumbel's, so that symbol k has the probability softmax(W features)_k; the gradient is that of
    softmax((W features + noise) / temperature) (straight-through Gumbel-softmax, Jang et al. 2017,
    https://arxiv.org/abs/1611.01144, section 2.2).

    Args:
        in_dim: size of the features.
        channels: messages of an agent, >= 1.
        message_dim: numbers of a message, or symbols to choose from.
        discrete: symbols instead of numbers.
    """

    def __init__(self, in_dim: int, channels: int, message_dim: int, discrete: bool):
        super().__init__()
        self.channels, self.discrete = channels, discrete
        self.say = dense(in_dim, channels * message_dim)

    def forward(self, features: Tensor, noise: Tensor | None, temperature: float) -> Tensor:
        """
        Args:
            features: (..., in_dim).
            noise: of the symbols, (..., channels * message_dim); None: the most likely symbols.
            temperature: of the gradient, above 0; the symbols themselves do not depend on it.
        """
        said = self.say(features)
        if not self.discrete:
            return torch.tanh(said)
        said = (said if noise is None else said + noise).unflatten(-1, (self.channels, -1))
        symbols = functional.one_hot(said.argmax(-1), said.shape[-1]).to(said.dtype)
        soft = torch.softmax(said / temperature, -1)
        return (symbols + (soft - soft.detach())).flatten(-2)  # what is added is exactly 0


def gumbel_noise(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Standard Gumbel noise, drawn by torch's own generator."""
    return -torch.empty(shape, device=device).exponential_().log()
