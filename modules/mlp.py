"""A multi-layer perceptron."""

from marl_tune.modules.base import ActorCritic


class Mlp(ActorCritic):
    """Dense layers over the observation; an image of floats is flattened. An image of bytes has
    the convolutions of `make_encoder` before them.

    Orthogonal weights and a small last policy layer, after Andrychowicz et al.: What matters in on-policy reinforcement
    learning? (2021, https://arxiv.org/abs/2006.05990).
    """
