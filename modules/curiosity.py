"""Curiosity: an intrinsic reward for what cannot be predicted yet."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from marl_tune.modules.base import ActorCritic
from marl_tune.modules.parts.exact_state import load_float64
from marl_tune.modules.parts.icm import make_icm
from marl_tune.modules.parts.observations import Observation, feature_space, split_mask
from marl_tune.modules.schemas import IcmFields, live_fields


class IntrinsicRewardAPI(ABC):
    """A module that rewards its agents itself, and learns what it needs for that by a loss of its own.

    Observations and next observations are rows (R, ...), or Dicts of them; actions are (R,) or (R, components) as the
    policy gave them.
    """

    @property
    @abstractmethod
    def intrinsic_weight(self) -> float:
        """Factor on the normalised intrinsic reward; to be read at every use, for it may change while a trial runs."""

    @property
    @abstractmethod
    def loss_weight(self) -> float:
        """Factor on `curiosity_loss`; to be read at every use."""

    @abstractmethod
    def curiosity_parameters(self) -> list[Parameter]:
        """What only `curiosity_loss` trains; it gets an optimizer, and gradient clipping, of its own."""

    @abstractmethod
    def intrinsic_rewards(self, obs: Observation, actions: Tensor, next_obs: Observation) -> Tensor:
        """(R,) raw intrinsic rewards, without gradient."""

    @abstractmethod
    def update_and_normalise(self, raw: Tensor) -> Tensor:
        """Takes raw rewards into the running deviation, and returns them divided by it."""

    @abstractmethod
    def curiosity_loss(
        self, obs: Observation, actions: Tensor, next_obs: Observation
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss, not yet weighted, and scalars to log; its gradient reaches neither actor nor critic."""


class Curiosity(ActorCritic, IntrinsicRewardAPI):
    """Dense layers (for an image, convolutions before them), and an intrinsic curiosity module beside them that
    shares no weight with actor and critic (Pathak et al. 2017, https://arxiv.org/abs/1705.05363)."""

    def setup(self) -> None:
        """Builds actor and critic, then the ICM."""
        super().setup()
        self.icm = make_icm(feature_space(self.observation_space), self.action_space, self.model_config)

    def get_non_inference_attributes(self) -> list[str]:
        """The critic's parts and the ICM."""
        return [*super().get_non_inference_attributes(), "icm"]

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over the weights, and the running deviation in full precision."""
        super().set_state(state)
        load_float64(self, state)

    def apply_live_settings(self, model_config: dict[str, Any]) -> None:
        """Takes over the three weights of the ICM."""
        self.model_config = self.model_config | {name: model_config[name] for name in live_fields(IcmFields)}

    @property
    def intrinsic_weight(self) -> float:
        """`module.intrinsic_weight`."""
        return self.model_config["intrinsic_weight"]

    @property
    def loss_weight(self) -> float:
        """`module.icm_loss_weight`."""
        return self.model_config["icm_loss_weight"]

    def curiosity_parameters(self) -> list[Parameter]:
        """All of the ICM."""
        return list(self.icm.parameters())

    @torch.no_grad()
    def intrinsic_rewards(self, obs: Observation, actions: Tensor, next_obs: Observation) -> Tensor:
        """(R,) half the squared error of the predicted features."""
        return self.icm.rewards(split_mask(obs)[0], actions, split_mask(next_obs)[0])

    @torch.no_grad()
    def update_and_normalise(self, raw: Tensor) -> Tensor:
        """(R,) rewards over the running deviation of all raw rewards so far, these included."""
        self.icm.running_deviation.update(raw)
        return self.icm.running_deviation(raw)

    def curiosity_loss(
        self, obs: Observation, actions: Tensor, next_obs: Observation
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(1 - beta) L_inverse + beta L_forward (eq. 7 of the paper)."""
        beta = self.model_config["icm_beta"]
        inverse, forward = self.icm.losses(split_mask(obs)[0], actions, split_mask(next_obs)[0])
        loss = (1.0 - beta) * inverse + beta * forward
        return loss, {"icm_loss": loss, "icm_inverse_loss": inverse, "icm_forward_loss": forward}
