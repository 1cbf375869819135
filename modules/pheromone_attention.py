"""Attention over the pheromone around an agent."""

import torch
from torch import Tensor

from marl_tune.modules.base import ActorCritic
from marl_tune.modules.parts.direction_attention import DirectionEncoder
from marl_tune.modules.parts.observations import Observation, feature_space, split_mask


class PheromoneAttention(ActorCritic):
    """Attention of the agent over the directions around it (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762).

    Each direction is a token of its pheromone level and its unit vector. The query are the agent's other features. The
    world says which entries of the observation are tokens.

    Raises:
        ValueError: when built for a world without direction tokens.
    """

    needs_tokens = True

    def build_encoder(self) -> DirectionEncoder:
        """The encoder with the attention."""
        settings, tokens = self.model_config, self.model_config.get("tokens")
        if tokens is None:
            raise ValueError(
                f"module={settings['name']} needs observations with direction tokens (one entry per direction, such as "
                "the pheromone around the agent), but this world's have none"
            )
        return DirectionEncoder(
            feature_space(self.observation_space),
            tokens["indices"],
            tokens["directions"],
            settings["hidden_dims"],
            settings["activation"],
            settings["attention_dim"],
            settings["num_heads"],
        )

    @torch.no_grad()
    def attention_weights(self, obs: Observation) -> Tensor:
        """The attention weights of each head: observations (B, ...) -> (B, heads, n_tokens). Each row sums to 1."""
        encoder = self.encoder
        assert isinstance(encoder, DirectionEncoder)
        return encoder.attention_weights(split_mask(obs)[0])
