"""Attention of an agent over the directions around it, and the encoder that is built on it."""

import math
from collections.abc import Sequence

import gymnasium as gym
import torch
from torch import Tensor, nn

from marl_tune.modules.parts.layers import dense, dense_stack
from marl_tune.modules.parts.protocols import Encoder


class DirectionAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762). The agent's features are the query.
    Each direction is a token, from which a key and a value are computed.

        token_n = tanh(level_n * a + D direction_n)
        output = W_o concat_h( sum_n softmax_n(q_h . k_hn / sqrt(d)) v_hn ),  d = attention_dim / num_heads

    Differs from the paper: there is one query, and no residual connection (the caller concatenates); keys have no bias,
    which softmax would cancel; a token combines its level and its direction's vector by a tanh, so that even an equal
    mixture of the tokens says which direction has which level.

    Args:
        query_dim: size of the agent's features.
        directions: unit vector of each direction.
        attention_dim: width over all heads.
        num_heads: heads; divides attention_dim.
    """

    directions: Tensor

    def __init__(self, query_dim: int, directions: Sequence[Sequence[float]], attention_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        # (n_tokens, axes); it comes from the world, so it is not saved with the weights
        self.register_buffer("directions", torch.tensor(directions, dtype=torch.float32), persistent=False)
        self.embed_level = dense(1, attention_dim, bias=False)
        self.embed_direction = dense(self.directions.shape[1], attention_dim)
        self.query = dense(query_dim, attention_dim)
        self.key = dense(attention_dim, attention_dim, bias=False)
        self.value = dense(attention_dim, attention_dim)
        self.output = dense(attention_dim, attention_dim)

    def _heads(self, wide: Tensor) -> Tensor:
        return wide.unflatten(-1, (self.num_heads, -1))  # (..., heads, attention_dim / heads)

    def _tokens(self, levels: Tensor) -> Tensor:
        return torch.tanh(self.embed_level(levels.unsqueeze(-1)) + self.embed_direction(self.directions))

    def _weights(self, features: Tensor, tokens: Tensor) -> Tensor:
        q = self._heads(self.query(features)).unsqueeze(-3)  # (..., 1, heads, d)
        k = self._heads(self.key(tokens))  # (..., n_tokens, heads, d)
        return torch.softmax((q * k).sum(-1) / math.sqrt(q.shape[-1]), -2)  # (..., n_tokens, heads)

    def forward(self, features: Tensor, levels: Tensor) -> Tensor:
        """Features (..., query_dim) and one level per direction (..., n_tokens) -> (..., attention_dim)."""
        tokens = self._tokens(levels)  # (..., n_tokens, attention_dim)
        v, weights = self._heads(self.value(tokens)), self._weights(features, tokens)
        return self.output((weights.unsqueeze(-1) * v).sum(-3).flatten(-2))

    def weights(self, features: Tensor, levels: Tensor) -> Tensor:
        """The attention weights of each head: (..., heads, n_tokens). Each row sums to 1."""
        return self._weights(features, self._tokens(levels)).transpose(-1, -2)


class DirectionEncoder(Encoder):
    """Encodes observations with direction tokens.

    Dense layers over the other entries give the query. One more dense layer joins them with the output of the
    attention. The tokens are read by the attention only, so its weights show which tokens are used.

    Args:
        space: of the observation, with one axis.
        indices: the entries that are tokens.
        directions: the unit vector of each token.
        hidden_dims, activation: of the dense layers.
        attention_dim, num_heads: of the attention.

    Raises:
        ValueError: if a token does not lie in the observation, or all entries are tokens.
    """

    token_indices: Tensor
    own_indices: Tensor

    def __init__(
        self,
        space: gym.spaces.Box,
        indices: Sequence[int],
        directions: Sequence[Sequence[float]],
        hidden_dims: Sequence[int],
        activation: str,
        attention_dim: int,
        num_heads: int,
    ):
        super().__init__()
        own = _other_entries(space, indices, directions)
        self.out_dim = hidden_dims[-1]
        self.register_buffer("token_indices", torch.tensor(indices), persistent=False)
        self.register_buffer("own_indices", torch.tensor(own), persistent=False)
        self.dense = dense_stack(len(own), hidden_dims, activation)
        self.attention = DirectionAttention(self.out_dim, directions, attention_dim, num_heads)
        self.join = dense_stack(self.out_dim + attention_dim, [self.out_dim], activation)

    def query_and_levels(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The features that are the query, (..., hidden), and the levels of the tokens, (..., n_tokens)."""
        entries = obs.float()
        return self.dense(entries[..., self.own_indices]), entries[..., self.token_indices]

    def forward(self, obs: Tensor) -> Tensor:
        features, levels = self.query_and_levels(obs)
        return self.join(torch.cat([features, self.attention(features, levels)], -1))

    def attention_weights(self, obs: Tensor) -> Tensor:
        """(..., heads, n_tokens) for observations (..., entries)."""
        return self.attention.weights(*self.query_and_levels(obs))


def _other_entries(space: gym.spaces.Box, indices: Sequence[int], directions: Sequence[Sequence[float]]) -> list[int]:
    """The entries of the observation that are not tokens."""
    if len(space.shape) != 1:
        raise ValueError(f"direction tokens need observations with one axis, got {space}")
    if len(set(indices)) != len(directions) or not set(indices) <= set(range(space.shape[0])):
        raise ValueError(
            f"direction tokens need {len(directions)} different indices below {space.shape[0]}, one per direction, "
            f"got {list(indices)}"
        )
    own = [i for i in range(space.shape[0]) if i not in set(indices)]
    if not own:
        raise ValueError(f"direction tokens need an observation with other entries beside them, got {space}")
    return own
