"""A multi-layer perceptron."""

from marl_tune.modules.base import ActorCritic


class Mlp(ActorCritic):
    """Dense layers over the observation; an image is taken as the vector of its pixels.

    Orthogonal weights and a small last policy layer, after Andrychowicz et al.: What matters in on-policy reinforcement
    learning? (2021, https://arxiv.org/abs/2006.05990).
    """
