"""The interfaces of the two kinds of parts of a module: encoders and memories."""

from torch import Tensor, nn


class Encoder(nn.Module):
    """Observations with any leading axes, (..., *shape) -> features (..., out_dim)."""

    out_dim: int

    def forward(self, obs: Tensor) -> Tensor:
        """The features."""
        raise NotImplementedError


class Memory(nn.Module):
    """Features (B, T, in_dim) and a state before the first step -> (B, T, out_dim) and the state after the last.

    A state is a dict, name -> (B, ...). Step t of the output depends on steps 0 to t only. It equals the result of t +
    1 calls with one step each.
    """

    out_dim: int

    def initial_state(self) -> dict[str, Tensor]:
        """The state of one agent at the start of an episode, without the batch axis."""
        raise NotImplementedError

    def forward(self, features: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The output and the next state."""
        raise NotImplementedError
