"""Dense layers followed by residual blocks."""

from torch import Tensor, nn

from marl_tune.modules.base import ActorCritic
from marl_tune.modules.parts.layers import ACTIVATIONS, dense
from marl_tune.modules.parts.protocols import Encoder


class Residual(ActorCritic):
    """A multi-layer perceptron with residual blocks behind it: x + W2 f(W1 x).

    After He et al. 2016, https://arxiv.org/abs/1512.03385. Differs from it: dense layers, no normalisation.
    """

    def build_encoder(self) -> Encoder:
        """Observation (..., *shape) -> features (..., out_dim)."""
        settings = self.model_config
        return ResidualEncoder(super().build_encoder(), settings["num_blocks"], settings["activation"])


class ResidualEncoder(Encoder):
    """Another encoder and residual blocks behind it."""

    def __init__(self, first: Encoder, num_blocks: int, activation: str) -> None:
        super().__init__()
        self.first, self.out_dim = first, first.out_dim
        width = first.out_dim
        self.blocks = nn.ModuleList(
            nn.Sequential(dense(width, width), ACTIVATIONS[activation](), dense(width, width))
            for _ in range(num_blocks)
        )

    def forward(self, obs: Tensor) -> Tensor:
        """Features (..., out_dim)."""
        features = self.first(obs)
        for block in self.blocks:
            features = features + block(features)
        return features
