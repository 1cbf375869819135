"""Dense layers with orthogonal weights, and the activations by name."""

import math
from collections.abc import Sequence
from typing import TypeVar

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

HIDDEN_GAIN = math.sqrt(2.0)  # gain of layers that are followed by an activation

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def orthogonal(layer: Layer, gain: float) -> Layer:
    """Initialises a layer with orthogonal weights of this gain and a bias of 0 (Saxe et al. 2014,
    https://arxiv.org/abs/1312.6120)."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def dense(in_dim: int, out_dim: int, gain: float = 1.0, bias: bool = True) -> nn.Linear:
    """A linear layer with orthogonal weights."""
    return orthogonal(nn.Linear(in_dim, out_dim, bias=bias), gain)


def dense_stack(in_dim: int, hidden_dims: Sequence[int], activation: str) -> nn.Sequential:
    """Dense layers of the given sizes, the activation after each; the output has hidden_dims[-1] entries."""
    layers: list[nn.Module] = []
    for width in hidden_dims:
        layers += [dense(in_dim, width, HIDDEN_GAIN), ACTIVATIONS[activation]()]
        in_dim = width
    return nn.Sequential(*layers)
