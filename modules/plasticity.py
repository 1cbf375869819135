"""Weights that change while an agent lives."""

from marl_tune.modules.base import ActorCritic
from marl_tune.modules.parts.plastic_layer import PlasticLayer


class Plasticity(ActorCritic):
    """Dense layers (for an image, convolutions before them), then a plastic layer (Miconi et al. 2018,
    https://arxiv.org/abs/1804.02464).

    State: `trace`, (plastic_dim, plastic_dim), one per agent, 0 at the start of an episode. It changes in the same way
    in exploration, inference and training.
    """

    def build_memory(self, in_dim: int) -> PlasticLayer:
        """The plastic layer."""
        settings = self.model_config
        return PlasticLayer(in_dim, settings["plastic_dim"], settings["trace_rule"], settings["trace_rate"])
