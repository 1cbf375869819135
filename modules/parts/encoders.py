"""Encoders: from observations with any leading axes, (..., *space.shape), to features (..., out_dim).

Images are copied to the device as uint8. Only the encoder converts them to floats.
"""

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from marl_tune.modules.parts.layers import ACTIVATIONS, HIDDEN_GAIN, dense_stack, orthogonal
from marl_tune.modules.parts.observations import scale_of
from marl_tune.modules.parts.protocols import Encoder
from marl_tune.modules.schemas import check_image, paddings

IMAGE_FILTERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # (channels, kernel, stride) of Mnih et al. 2015


class VectorEncoder(Encoder):
    """Dense layers over all entries of the observation.

    Args:
        space: of the observation, of any shape.
        hidden_dims: sizes of the layers.
        activation: name of the activation after each.
    """

    def __init__(self, space: gym.spaces.Box, hidden_dims: Sequence[int], activation: str):
        super().__init__()
        self.axes, self.scale, self.out_dim = len(space.shape), scale_of(space), hidden_dims[-1]
        self.dense = dense_stack(int(torch.Size(space.shape).numel()), hidden_dims, activation)

    def forward(self, obs: Tensor) -> Tensor:
        rows = obs.flatten(-self.axes).float()
        return self.dense(rows if self.scale == 1 else rows * self.scale)


class ImageEncoder(Encoder):
    """Convolutions over an image (height, width, channels), then dense layers (after Mnih et al. 2015,
    https://doi.org/10.1038/nature14236).

    Differs from the paper: the default padding is half a kernel, so that a stride s divides each side by about s, and
    no image is too small.

    Args:
        space: of the observation, three axes.
        conv_filters: (channels, kernel, stride) or (channels, kernel, stride, padding) of each convolution.
        hidden_dims: sizes of the dense layers.
        activation: name of the activation after each layer.

    Raises:
        ValueError: if a kernel is larger than its padded input.
    """

    def __init__(
        self,
        space: gym.spaces.Box,
        conv_filters: Sequence[Sequence[int]],
        hidden_dims: Sequence[int],
        activation: str,
    ):
        super().__init__()
        self.scale, self.out_dim = scale_of(space), hidden_dims[-1]
        layers: list[nn.Module] = []
        height, width, in_channels = space.shape
        check_image(height, width, conv_filters)
        for (channels, kernel, stride, *_), padding in zip(conv_filters, paddings(conv_filters), strict=True):
            convolution = nn.Conv2d(in_channels, channels, kernel, stride, padding)
            layers += [orthogonal(convolution, HIDDEN_GAIN), ACTIVATIONS[activation]()]
            in_channels = channels
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            flat = self.convolutions(torch.zeros(1, *space.shape).permute(0, 3, 1, 2)).shape[1]
        self.dense = dense_stack(flat, hidden_dims, activation)

    def forward(self, obs: Tensor) -> Tensor:
        images = obs.reshape(-1, *obs.shape[-3:]).permute(0, 3, 1, 2).float() * self.scale  # (rows, C, H, W)
        return self.dense(self.convolutions(images)).unflatten(0, obs.shape[:-3])


def make_encoder(
    space: gym.spaces.Box, hidden_dims: Sequence[int], activation: str, conv_filters: Sequence[Sequence[int]]
) -> Encoder:
    """The encoder for a space: convolutions for images, else dense layers.

    A space with three axes is an image if the module has `conv_filters`, and in every module if its entries are bytes:
    dense layers over all pixels would have millions of weights.
    """
    if len(space.shape) == 3 and (conv_filters or space.dtype == np.uint8):
        return ImageEncoder(space, conv_filters or IMAGE_FILTERS, hidden_dims, activation)
    return VectorEncoder(space, hidden_dims, activation)
