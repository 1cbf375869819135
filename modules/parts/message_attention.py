"""Attention of an agent over the messages of the other agents."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from marl_tune.modules.parts.layers import dense


class MessageAttention(nn.Module):
    """Targeted communication: the receiver's features are the query. From each sender's message come its signature (the
    key) and what is read (the value).

        read_i = concat_h( sum_j softmax_j(q_ih . k_jh / sqrt(d)) v_jh ),  d = attention_dim / num_heads

    After TarMAC (Das et al. 2019, https://arxiv.org/abs/1810.11187). Differs from it: several heads are possible; no
    agent hears itself; signature and value are both functions of one message, so that its size limits the information;
    an agent that hears no other agent reads zeros.

    Args:
        query_dim: size of the receivers' features.
        message_dim: size of the messages of one sender.
        attention_dim: width over all heads, which is also the width of what is read.
        num_heads: heads; divides attention_dim.
    """

    def __init__(self, query_dim: int, message_dim: int, attention_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query = dense(query_dim, attention_dim)
        self.key_and_value = dense(message_dim, 2 * attention_dim)  # both at once: half the calls

    def _heads(self, wide: Tensor) -> Tensor:
        return wide.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)  # (..., heads, N, d)

    def _parts(self, features: Tensor, messages: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (..., heads, N, d) each."""
        key, value = self.key_and_value(messages).chunk(2, -1)
        return self._heads(self.query(features)), self._heads(key), self._heads(value)

    def forward(self, features: Tensor, messages: Tensor, hears: Tensor) -> Tensor:
        """What each agent reads, (..., N, attention_dim).

        Args:
            features: of the receivers, (..., N, query_dim).
            messages: of the senders, (..., N, message_dim).
            hears: whether receiver i hears sender j, bool (N, N) or (..., N, N).
        """
        q, k, v = self._parts(features, messages)
        # torch's function returns 0 for an agent that hears no other; tests/modules/test_communication.py checks that.
        read = functional.scaled_dot_product_attention(q, k, v, attn_mask=_of_heads(hears))  # (..., heads, N, d)
        return read.transpose(-2, -3).flatten(-2)

    def weights(self, features: Tensor, messages: Tensor, hears: Tensor) -> Tensor:
        """The weight that each head of receiver i gives to sender j: (..., heads, N, N). A row sums to 1, or to 0 if
        the receiver hears no other agent. Arguments as for `forward`."""
        q, k, _ = self._parts(features, messages)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        heard = _of_heads(hears)
        return torch.softmax(torch.where(heard, scores, torch.finfo(scores.dtype).min), -1) * heard


def _of_heads(hears: Tensor) -> Tensor:
    """The mask with an axis for the heads: (..., N, N) -> (..., 1, N, N). A mask (N, N) stays as it is."""
    return hears if hears.ndim == 2 else hears.unsqueeze(-3)
