"""A recurrent network as a module's memory."""

import torch
from torch import Tensor, nn

from marl_tune.modules.parts.protocols import Memory


class RecurrentMemory(Memory):
    """torch's LSTM (Hochreiter, Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735) or GRU (Cho et al. 2014,
    https://arxiv.org/abs/1406.1078), with its state as a dict of one entry per agent.

    Args:
        network: nn.LSTM or nn.GRU.
        in_dim: size of the features that come in.
        state_dim: units of each layer; the output has as many entries.
        num_layers: layers.
    """

    def __init__(self, network: type[nn.LSTM] | type[nn.GRU], in_dim: int, state_dim: int, num_layers: int):
        super().__init__()
        self.out_dim, self.shape = state_dim, (num_layers, state_dim)
        self.names = ("h", "c") if network is nn.LSTM else ("h",)
        self.network = network(in_dim, state_dim, num_layers, batch_first=True)
        for name, parameter in self.network.named_parameters():
            nn.init.zeros_(parameter) if name.startswith("bias") else nn.init.orthogonal_(parameter)
            if network is nn.LSTM and name.startswith("bias_ih"):
                # Remember by default (Jozefowicz et al. 2015, https://proceedings.mlr.press/v37/jozefowicz15.html).
                nn.init.ones_(parameter.data[state_dim : 2 * state_dim])

    def initial_state(self) -> dict[str, Tensor]:
        """The state of one agent at the start of an episode: name -> (num_layers, state_dim)."""
        return {name: torch.zeros(self.shape) for name in self.names}

    def forward(self, features: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, T, in_dim) and the state (B, num_layers, state_dim) before the first step -> (B, T, state_dim) and the
        state after the last."""
        parts = [state[name].transpose(0, 1).contiguous() for name in self.names]  # torch wants the layers first
        outputs, last = self.network(features, tuple(parts) if len(parts) > 1 else parts[0])
        last = last if len(parts) > 1 else (last,)
        return outputs, {name: part.transpose(0, 1) for name, part in zip(self.names, last, strict=True)}
