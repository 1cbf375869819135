"""A convolutional network."""

from marl_tune.modules.base import ActorCritic


class Cnn(ActorCritic):
    """Convolutions, then dense layers, over an image (height, width, channels). For a vector, only the dense layers.

    The base class builds the convolutions, because this module's settings have `conv_filters`.
    """
