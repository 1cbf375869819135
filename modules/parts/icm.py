"""Intrinsic curiosity module (ICM): the reward is the error of a prediction of the next observation."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional

from marl_tune.modules.parts.actions import categories
from marl_tune.modules.parts.encoders import make_encoder
from marl_tune.modules.parts.layers import dense, dense_stack
from marl_tune.modules.parts.running_deviation import RunningDeviation


class ActionCode:
    """Encodes an action as a vector for the forward model, and computes the loss of the inverse model.

    | space | vector | loss |
    |---|---|---|
    | Discrete, MultiDiscrete | one-hot parts | cross entropy, mean over the components |
    | Box | the numbers, clipped as for the world | mean squared error |

    Args:
        space: of one action, in the policy's units: [-1, 1] if the Box is bounded.
    """

    def __init__(self, space: gym.Space):
        self.categories = [] if isinstance(space, gym.spaces.Box) else categories(space)
        self.dim = sum(self.categories) or space.shape[0]
        # The world never gets numbers outside of the bounds, which a Gaussian policy may draw.
        self.clipped = isinstance(space, gym.spaces.Box) and space.is_bounded("both")

    def encode(self, actions: Tensor) -> Tensor:
        """(rows,) or (rows, components) -> (rows, dim) float."""
        if not self.categories:
            return actions.float().clamp(-1.0, 1.0) if self.clipped else actions.float()
        columns = actions.long().reshape(len(actions), -1).unbind(1)
        parts = [functional.one_hot(a, n) for a, n in zip(columns, self.categories, strict=True)]
        return torch.cat(parts, -1).float()

    def loss(self, guess: Tensor, code: Tensor) -> Tensor:
        """The loss, a mean over rows. `guess` holds logits or numbers; `code` is a result of `encode`."""
        if not self.categories:
            return functional.mse_loss(guess, code)
        pairs = zip(guess.split(self.categories, -1), code.split(self.categories, -1), strict=True)
        return torch.stack([functional.cross_entropy(g, c) for g, c in pairs]).mean()


class Icm(nn.Module):
    """Features phi of an observation, a forward model from phi(s) and a to phi(s'), and an inverse model from phi(s)
    and phi(s') to a (Pathak et al. 2017, https://arxiv.org/abs/1705.05363).

    Differs from the paper: a vector is encoded by dense layers instead of four convolutions; the error is normalised by
    a running deviation. As in the paper's equations 3 and 5, the loss of the inverse model trains phi, and the loss of
    the prediction trains only the forward model. In the authors' code the latter trains phi, too.

    Args:
        space: of the encoded observation.
        action_space: of one action.
        feature_dim: size of phi.
        hidden_dims: sizes of the dense layers of each of the three networks.
        activation: after each of those layers.
        conv_filters: convolutions of phi, if the observation is an image.
    """

    def __init__(
        self,
        space: gym.spaces.Box,
        action_space: gym.Space,
        feature_dim: int,
        hidden_dims: Sequence[int],
        activation: str,
        conv_filters: Sequence[Sequence[int]],
    ):
        super().__init__()
        self.code = ActionCode(action_space)

        def model(in_dim: int, out_dim: int) -> nn.Sequential:
            return nn.Sequential(dense_stack(in_dim, hidden_dims, activation), dense(hidden_dims[-1], out_dim))

        encoder = make_encoder(space, hidden_dims, activation, conv_filters)
        self.phi = nn.Sequential(encoder, dense(encoder.out_dim, feature_dim))
        self.forward_model = model(feature_dim + self.code.dim, feature_dim)
        self.inverse_model = model(2 * feature_dim, self.code.dim)
        self.running_deviation = RunningDeviation()

    def prediction_error(self, phi: Tensor, code: Tensor, next_phi: Tensor) -> Tensor:
        """Half the squared distance between predicted and true features, eq. 6, (rows,). No gradient flows into phi."""
        predicted = self.forward_model(torch.cat([phi.detach(), code], -1))
        return 0.5 * (predicted - next_phi.detach()).square().sum(-1)

    def rewards(self, obs: Tensor, actions: Tensor, next_obs: Tensor) -> Tensor:
        """The prediction errors of transitions, (rows,)."""
        return self.prediction_error(self.phi(obs), self.code.encode(actions), self.phi(next_obs))

    def losses(self, obs: Tensor, actions: Tensor, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        """L_inverse and L_forward, scalar means over rows."""
        phi, next_phi, code = self.phi(obs), self.phi(next_obs), self.code.encode(actions)
        inverse = self.code.loss(self.inverse_model(torch.cat([phi, next_phi], -1)), code)
        return inverse, self.prediction_error(phi, code, next_phi).mean()


def make_icm(space: gym.spaces.Box, action_space: gym.Space, settings: Mapping[str, Any]) -> Icm:
    """Builds the ICM of a model config."""
    return Icm(
        space,
        action_space,
        settings["icm_feature_dim"],
        settings["icm_hidden_dims"],
        settings["activation"],
        settings.get("conv_filters", ()),
    )
