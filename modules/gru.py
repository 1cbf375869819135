"""A gated recurrent unit behind the encoder."""

from torch import nn

from marl_tune.modules.base import ActorCritic
from marl_tune.modules.parts.recurrent import RecurrentMemory


class Gru(ActorCritic):
    """Dense layers (for an image, convolutions before them), then a GRU. State: `h`, (num_layers, state_dim)."""

    def build_memory(self, in_dim: int) -> RecurrentMemory:
        """The GRU."""
        return RecurrentMemory(nn.GRU, in_dim, self.model_config["state_dim"], self.model_config["num_layers"])
