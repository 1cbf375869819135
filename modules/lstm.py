"""A long short-term memory behind the encoder."""

from torch import nn

from marl_tune.modules.base import ActorCritic
from marl_tune.modules.parts.recurrent import RecurrentMemory


class Lstm(ActorCritic):
    """Dense layers (for an image, convolutions before them), then an LSTM. State: `h` and `c`, (num_layers,
    state_dim)."""

    def build_memory(self, in_dim: int) -> RecurrentMemory:
        """The LSTM."""
        return RecurrentMemory(nn.LSTM, in_dim, self.model_config["state_dim"], self.model_config["num_layers"])
