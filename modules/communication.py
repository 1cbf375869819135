"""Agents that talk: messages between the agents of one copy of a world in one step, learned end to end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from marl_tune.modules.base import ActorCritic, Batch
from marl_tune.modules.parts.layers import ACTIVATIONS, HIDDEN_GAIN, dense
from marl_tune.modules.parts.message_attention import MessageAttention
from marl_tune.modules.parts.messages import Speaker, gumbel_noise
from marl_tune.modules.parts.observations import Observation, feature_space, split_mask
from marl_tune.modules.schemas import CommunicationFields, live_fields

MESSAGE_NOISE = "message_noise"  # column: (..., comm_rounds * comm_channels * message_dim) of each agent and step


class TeamAPI(ABC):
    """A module whose agents of one copy and step are taken together: batches are (R, N, ...), a row a team.

    The rows of a batch do not depend on each other, the agents within one do. Their order does not matter.
    """

    @property
    @abstractmethod
    def team_size(self) -> int:
        """N, the agents of one copy that the module serves, all of them in every step."""

    @property
    @abstractmethod
    def drawn_columns(self) -> tuple[str, ...]:
        """Outputs of `forward_exploration` that training needs, because they were drawn; (R, N, width) each.

        A batch that has them is not drawn for again; zeros stand for what inference does, which draws nothing.
        """


class Round(nn.Module):
    """One exchange of messages: every agent speaks, reads, and joins what it read with its features,

        features <- activation(features + W read)

    Args:
        dim: size of the features, which stays.
        settings: the module's config.
    """

    def __init__(self, dim: int, settings: Batch):
        super().__init__()
        channels, width = settings["comm_channels"], settings["attention_dim"]
        if channels > 0:
            self.speaker = Speaker(dim, channels, settings["message_dim"], settings["message_type"] == "discrete")
            self.attention = MessageAttention(dim, channels * settings["message_dim"], width, settings["num_heads"])
        self.join = dense(width, dim, HIDDEN_GAIN)
        self.activation = ACTIVATIONS[settings["activation"]]()

    def forward(self, features: Tensor, hears: Tensor | None, noise: Tensor | None, temperature: float) -> Tensor:
        """Features (..., N, dim) -> (..., N, dim); `hears` None: nothing gets through, all read zeros."""
        if hears is None:
            joined = self.join.bias  # W 0
        else:
            joined = self.join(self.attention(features, self.speaker(features, noise, temperature), hears))
        return self.activation(features + joined)


class Communication(ActorCritic, TeamAPI):
    """Dense layers (for an image, convolutions before them), then rounds of messages between the agents of a copy.

    In each of `comm_rounds`, every agent says `comm_channels` messages of `message_dim` numbers or of one of
    `message_dim` symbols, which the others read by attention (`parts/message_attention.py`), and goes on with its
    features joined with what it read. The gradient of an agent's loss flows through what it read into those who said
    it. Nobody hears itself; with `comm_range`, agents hear those only whose positions in the observation are not
    farther away. A separate critic sees its agent's own observation and, without training them, the actor's features
    with what was read.

    Differs from TarMAC (Das et al. 2019, https://arxiv.org/abs/1810.11187): the rounds of one step have weights of
    their own, features are added to what was read without a matrix of their own, there is no recurrent state, and
    messages are read in the step in which they are said.

    Raises:
        ValueError: for a `comm_range` where the world's observations have no positions.
    """

    others: Tensor

    def setup(self) -> None:
        """Builds actor and critic, then the rounds between the encoder and the heads."""
        super().setup()
        settings = self.model_config
        if settings["comm_range"] is not None and settings["positions"] is None:
            raise ValueError(
                f"module.comm_range must be null where observations have no positions of the agents, got "
                f"{settings['comm_range']}"
            )
        # (N, N) nobody hears itself; it follows from the world, so it is not saved with the weights
        self.register_buffer("others", ~torch.eye(self.team_size, dtype=torch.bool), persistent=False)
        self.rounds = nn.ModuleList(Round(self.encoder.out_dim, settings) for _ in range(settings["comm_rounds"]))

    @property
    def team_size(self) -> int:
        """The agents that the module serves."""
        return self.model_config["team_size"]

    @property
    def drawn_columns(self) -> tuple[str, ...]:
        """The noise of discrete messages."""
        return (MESSAGE_NOISE,) if self._noise_width else ()

    @property
    def _noise_width(self) -> int:
        settings = self.model_config
        if settings["message_type"] != "discrete":
            return 0
        return settings["comm_rounds"] * settings["comm_channels"] * settings["message_dim"]

    def apply_live_settings(self, model_config: Batch) -> None:
        """Takes over the temperature, the range, and whether the channel is cut."""
        self.model_config = self.model_config | {name: model_config[name] for name in live_fields(CommunicationFields)}

    def critic_reads_features(self) -> bool:
        """A separate critic knows what the agents were told."""
        return True

    # -- forward -----------------------------------------------------------------------------------------------------

    def _features(self, batch: Batch) -> tuple[Tensor, Batch]:
        obs, _ = split_mask(batch[Columns.OBS])
        features = self.encoder(obs)
        hears, temperature = self._hears(obs), self.model_config["gumbel_temperature"]
        for exchange, noise in zip(self.rounds, self._noise_of_rounds(batch), strict=True):
            features = exchange(features, hears, noise, temperature)
        return features, {}

    def _noise_of_rounds(self, batch: Batch) -> Sequence[Tensor | None]:
        noise = batch.get(MESSAGE_NOISE)
        return [None] * len(self.rounds) if noise is None else noise.chunk(len(self.rounds), -1)

    def _hears(self, obs: Tensor) -> Tensor | None:
        """Whether agent i hears agent j, (N, N) or (..., N, N) bool; None where nothing gets through."""
        settings = self.model_config
        if settings["comm_cut"] or settings["comm_channels"] == 0:
            return None
        if settings["comm_range"] is None:
            return self.others
        places = obs[..., settings["positions"]]  # (..., N, axes)
        apart = places.unsqueeze(-2) - places.unsqueeze(-3)
        return self.others & (apart.square().sum(-1) <= settings["comm_range"] ** 2)

    def _forward_exploration(self, batch: Batch, **kwargs: Any) -> Batch:
        if not self.drawn_columns:
            return self._forward(batch, **kwargs)
        noise = batch.get(MESSAGE_NOISE)
        if noise is None:
            obs, _ = split_mask(batch[Columns.OBS])
            lead = obs.shape[: obs.ndim - len(feature_space(self.observation_space).shape)]
            noise = gumbel_noise((*lead, self._noise_width), obs.device)
        drawn = {MESSAGE_NOISE: noise}
        return self._forward(batch | drawn, **kwargs) | drawn

    @torch.no_grad()
    def attention_weights(self, obs: Observation) -> Tensor:
        """Whom each agent listens to in inference: observations (..., N, *shape) -> (rounds, ..., heads, N, N), in
        which [r, ..., h, i, j] is what head h of receiver i gives to sender j.

        Raises:
            ValueError: where the channel is cut.
        """
        seen, _ = split_mask(obs)
        features, weights = self.encoder(seen), []
        hears, temperature = self._hears(seen), self.model_config["gumbel_temperature"]
        if hears is None:
            raise ValueError("nobody listens to anybody: the channel is cut")
        for exchange in self.rounds:
            assert isinstance(exchange, Round)
            messages = exchange.speaker(features, None, temperature)
            weights.append(exchange.attention.weights(features, messages, hears))
            features = exchange(features, hears, None, temperature)
        return torch.stack(weights)
