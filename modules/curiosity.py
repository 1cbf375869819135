"""Curiosity: an intrinsic reward for observations that the agent cannot predict yet."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from marl_tune.modules.base import ActorCritic, Settings
from marl_tune.modules.parts.exact_state import load_float64
from marl_tune.modules.parts.icm import make_icm
from marl_tune.modules.parts.observations import Observation, feature_space, split_mask
from marl_tune.modules.schemas import IcmFields, live_fields


class IntrinsicRewardAPI(ABC):
    """A module that computes intrinsic rewards for its agents, and has a loss of its own to learn them.

    Observations and next observations are rows (R, ...), or dicts of them. Actions are (R,) or (R, components), in the
    units of the policy.
    """

    @property
    @abstractmethod
    def intrinsic_weight(self) -> float:
        """Factor on the normalised intrinsic reward. Read it at every use: it may change while a trial runs."""

    @property
    @abstractmethod
    def loss_weight(self) -> float:
        """Factor on `curiosity_loss`. Read it at every use: it may change while a trial runs."""

    @abstractmethod
    def curiosity_parameters(self) -> list[Parameter]:
        """The parameters that only `curiosity_loss` trains. They have an optimizer and gradient clipping of their
        own."""

    @abstractmethod
    def intrinsic_rewards(self, obs: Observation, actions: Tensor, next_obs: Observation) -> Tensor:
        """Intrinsic rewards before normalisation, (R,), without gradient."""

    @abstractmethod
    def update_and_normalise(self, raw: Tensor) -> Tensor:
        """Updates the running deviation with raw rewards, and returns the rewards divided by it."""

    @abstractmethod
    def curiosity_loss(
        self, obs: Observation, actions: Tensor, next_obs: Observation
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, a scalar without its weight, and scalars to log. Its gradient reaches neither actor nor critic."""


class Curiosity(ActorCritic, IntrinsicRewardAPI):
    """Dense layers (for an image, convolutions before them), and beside them an intrinsic curiosity module (Pathak et
    al. 2017, https://arxiv.org/abs/1705.05363) that shares no weight with actor and critic."""

    def setup(self) -> None:
        """Builds actor and critic, then the ICM."""
        super().setup()
        self.icm = make_icm(feature_space(self.observation_space), self.action_space, self.model_config)

    def get_non_inference_attributes(self) -> list[str]:
        """The critic's parts and the ICM."""
        return [*super().get_non_inference_attributes(), "icm"]

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Loads the weights, and the running deviation in full precision."""
        super().set_state(state)
        load_float64(self, state)

    def apply_live_settings(self, model_config: Settings) -> None:
        """Sets the three weights of the ICM, which can change while a trial runs."""
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
        """All parameters of the ICM."""
        return list(self.icm.parameters())

    @torch.no_grad()
    def intrinsic_rewards(self, obs: Observation, actions: Tensor, next_obs: Observation) -> Tensor:
        """Half the squared error of the predicted features, (R,)."""
        return self.icm.rewards(split_mask(obs)[0], actions, split_mask(next_obs)[0])

    @torch.no_grad()
    def update_and_normalise(self, raw: Tensor) -> Tensor:
        """Rewards divided by the running deviation of all raw rewards so far, including these: (R,)."""
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
