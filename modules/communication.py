"""Communication: the agents of one copy of a world exchange messages in each step, and learn them end to end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from marl_tune.modules.base import ActorCritic, Batch, Settings
from marl_tune.modules.parts.layers import ACTIVATIONS, HIDDEN_GAIN, dense
from marl_tune.modules.parts.message_attention import MessageAttention
from marl_tune.modules.parts.messages import Speaker, gumbel_noise
from marl_tune.modules.parts.observations import Observation, feature_space, split_mask
from marl_tune.modules.schemas import CommunicationFields, live_fields

MESSAGE_NOISE = "message_noise"
# column of a batch: noise of discrete messages, (..., comm_rounds * comm_channels * message_dim) of each agent and step


class TeamAPI(ABC):
    """A module that acts for all agents of one copy and step together. Batches are (R, N, ...): each row is one team.

    The rows of a batch do not depend on each other; the agents within a row do. The order of agents does not matter.
    """

    @property
    @abstractmethod
    def team_size(self) -> int:
        """N: number of agents of one copy for which the module acts. All of them act in every step."""

    @property
    @abstractmethod
    def drawn_columns(self) -> tuple[str, ...]:
        """Outputs of `forward_exploration` that were drawn at random, and that training needs; (R, N, width) each.

        For a batch that already has them, nothing is drawn. Zeros stand for inference, which draws nothing.
        """


class Round(nn.Module):
    """One exchange of messages: every agent sends, reads, and adds what it read to its features,

        features <- activation(features + W read)

    Args:
        dim: size of the features, before and after.
        settings: the module's config.
    """

    def __init__(self, dim: int, settings: Settings):
        super().__init__()
        channels, width = settings["comm_channels"], settings["attention_dim"]
        if channels > 0:
            self.speaker = Speaker(dim, channels, settings["message_dim"], settings["message_type"] == "discrete")
            self.attention = MessageAttention(dim, channels * settings["message_dim"], width, settings["num_heads"])
        self.join = dense(width, dim, HIDDEN_GAIN)
        self.activation = ACTIVATIONS[settings["activation"]]()

    def forward(self, features: Tensor, hears: Tensor | None, noise: Tensor | None, temperature: float) -> Tensor:
        """Features (..., N, dim) -> (..., N, dim). `hears` None: no message arrives, and all agents read zeros."""
        if hears is None:
            joined = self.join.bias  # W 0
        else:
            joined = self.join(self.attention(features, self.speaker(features, noise, temperature), hears))
        return self.activation(features + joined)


class Communication(ActorCritic, TeamAPI):
    """Dense layers (for an image, convolutions before them), then rounds of messages between the agents of a copy.

    In each of `comm_rounds`, every agent sends `comm_channels` messages. A message is `message_dim` numbers, or one of
    `message_dim` symbols. The others read it by attention (`parts/message_attention.py`), and add what they read to
    their features. The gradient of an agent's loss flows through the messages into their senders. No agent reads its
    own messages. With `comm_range`, an agent reads only messages of agents within that distance, by the positions in
    the observations. A separate critic sees its agent's own observation and, without training them, the actor's
    features after all rounds.

    Differs from TarMAC (Das et al. 2019, https://arxiv.org/abs/1810.11187): each round of a step has weights of its
    own; features are added to what was read without a matrix of their own; there is no recurrent state; messages are
    read in the step in which they are sent.

    Raises:
        ValueError: if `comm_range` is set and the world's observations have no positions.
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
        # (N, N) no agent hears itself; this follows from the world, so it is not saved with the weights
        self.register_buffer("others", ~torch.eye(self.team_size, dtype=torch.bool), persistent=False)
        self.rounds = nn.ModuleList(Round(self.encoder.out_dim, settings) for _ in range(settings["comm_rounds"]))

    @property
    def team_size(self) -> int:
        """See `TeamAPI.team_size`."""
        return self.model_config["team_size"]

    @property
    def drawn_columns(self) -> tuple[str, ...]:
        """See `TeamAPI.drawn_columns`: the noise of discrete messages."""
        return (MESSAGE_NOISE,) if self._noise_width else ()

    @property
    def _noise_width(self) -> int:
        settings = self.model_config
        if settings["message_type"] != "discrete":
            return 0
        return settings["comm_rounds"] * settings["comm_channels"] * settings["message_dim"]

    def apply_live_settings(self, model_config: Settings) -> None:
        """Sets the temperature, the range, and whether the channel is cut, which can change while a trial runs."""
        self.model_config = self.model_config | {name: model_config[name] for name in live_fields(CommunicationFields)}

    def critic_reads_features(self) -> bool:
        """True: a separate critic reads the features, which hold the messages."""
        return True

    # -- forward -----------------------------------------------------------------------------------------------------

    def features(self, batch: Batch) -> tuple[Tensor, Batch]:
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
        """Whether agent i hears agent j, (N, N) or (..., N, N) bool; None: no message arrives."""
        settings = self.model_config
        if settings["comm_cut"] or settings["comm_channels"] == 0:
            return None
        if settings["comm_range"] is None:
            return self.others
        places = obs[..., settings["positions"]]  # (..., N, axes)
        apart = places.unsqueeze(-2) - places.unsqueeze(-3)
        return self.others & (apart.square().sum(-1) <= settings["comm_range"] ** 2)

    def _forward_exploration(self, batch: Batch, **kwargs: object) -> Batch:
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
        """The attention of each agent to the messages of the others, in inference.

        Args:
            obs: observations (..., N, *shape).

        Returns:
            (rounds, ..., heads, N, N): [r, ..., h, i, j] is the weight that head h of receiver i gives to sender j.

        Raises:
            ValueError: if the channel is cut.
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
