"""The base class of all modules: an actor and a critic on top of an encoder and, in some modules, a memory."""

from typing import Any, TypeAlias

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from marl_tune.modules.parts.actions import check_action_space, distribution_class, mask_logits, policy_head
from marl_tune.modules.parts.encoders import make_encoder
from marl_tune.modules.parts.layers import dense
from marl_tune.modules.parts.observations import feature_space, mask_size, split_mask
from marl_tune.modules.parts.protocols import Encoder, Memory

Batch: TypeAlias = dict[str, Any]
# RLlib's columns by name: tensors, or dicts of tensors (a Dict observation, a recurrent state)
Settings: TypeAlias = dict[str, Any]
# a module's config dataclass as a dict, and what the world says: see `ActorCritic`

# With this gain the values are near 0 at the start. Values near 1 would hide small rewards in the first advantages. On
# the ant colony, 8 of 8 seeds learn with this gain, and 5 of 8 with the usual gain of 1.
VALUE_GAIN = 0.01


class ActorCritic(TorchRLModule, ValueFunctionAPI, InferenceOnlyAPI):
    """observation -> encoder -> memory (if any) -> policy head and value head.

    A module overrides `build_encoder`, `build_memory` or `build_policy_head`. A separate critic has a plain encoder and
    no state of its own. If there is a memory, the critic also reads the actor's features, without training them: so its
    values depend on what the agent remembers.

    `model_config` is the module's config dataclass as a dict (modules/schemas.py), together with facts of the world:

    | key | value |
    |---|---|
    | `tokens` | `indices` and `directions` of the direction tokens in an observation, or None |
    | `positions` | the entries of an observation that are the agent's own position, or None |
    | `team_size` | number of agents of one copy for which the module acts |
    | `central_critic` | true: one critic serves all agents; this module has none, and returns no values or embeddings |

    Shapes: a stateless module takes observations (B, ...). A module with a memory takes observations (B, T, ...) and
    `state_in`, name -> (B, ...), and returns `state_out` after step T. The output of a step does not depend on later
    steps, so padding at the end changes nothing. Observations may be a Dict of `observation` and `action_mask`.

    Raises:
        ValueError: when built for spaces that are not supported.
    """

    model_config: Settings
    needs_tokens = False  # whether observations must have direction tokens
    team_class: type[MultiRLModule] = MultiRLModule  # class of the MultiRLModule that holds the modules of all policies

    def setup(self) -> None:
        """Builds the parts; RLlib calls it once."""
        feature_space(self.observation_space)  # refuses a space before anything is built for it
        check_action_space(self.action_space, mask_size(self.observation_space))
        self.action_dist_cls = distribution_class(self.action_space)
        self.encoder: Encoder = self.build_encoder()
        self.memory: Memory | None = self.build_memory(self.encoder.out_dim)
        width = self.encoder.out_dim if self.memory is None else self.memory.out_dim
        self.policy_head = self.build_policy_head(width)
        if not self.has_critic:
            return
        if self.model_config["separate_critic"]:
            self.critic_encoder = ActorCritic.build_encoder(self)
            width = self.critic_encoder.out_dim + (width if self.critic_reads_features() else 0)
        self.value_head = dense(width, 1, VALUE_GAIN)

    @property
    def has_critic(self) -> bool:
        """Whether the module has a critic of its own."""
        return not self.model_config.get("central_critic", False)

    def build_encoder(self) -> Encoder:
        """Observation (..., *shape) -> features (..., out_dim)."""
        settings = self.model_config
        space = feature_space(self.observation_space)
        return make_encoder(space, settings["hidden_dims"], settings["activation"], settings.get("conv_filters", ()))

    def build_policy_head(self, in_dim: int) -> nn.Module:
        """Features (..., in_dim) -> inputs of the action distribution (..., n)."""
        return policy_head(self.action_space, in_dim)

    def build_memory(self, in_dim: int) -> Memory | None:
        """The part that remembers the features of earlier steps; None for a stateless module."""
        return None

    def critic_reads_features(self) -> bool:
        """Whether a separate critic also reads the actor's features, because they hold more than the observation."""
        return self.memory is not None

    # -- methods that RLlib calls --------------------------------------------------------------------------------------

    def is_stateful(self) -> bool:
        """Whether the module has a memory."""
        return self.memory is not None

    def get_initial_state(self) -> dict[str, Tensor]:
        """The state of one agent at the start of an episode, all 0: name -> tensor without a batch axis."""
        return {} if self.memory is None else self.memory.initial_state()

    def get_non_inference_attributes(self) -> list[str]:
        """Parts that are not needed to choose actions. A module with `inference_only=True` is built without them."""
        if not self.has_critic:
            return []
        return ["value_head", *(["critic_encoder"] if self.model_config["separate_critic"] else [])]

    def apply_live_settings(self, model_config: Settings) -> None:
        """Sets the settings that can change while a trial runs; this module has none."""

    # -- forward -----------------------------------------------------------------------------------------------------

    def features(self, batch: Batch) -> tuple[Tensor, Batch]:
        """The features that the policy head reads, and further outputs of the forward pass: `state_out` of a memory."""
        obs, _ = split_mask(batch[Columns.OBS])
        features = self.encoder(obs)
        if self.memory is None:
            return features, {}
        features, state = self.memory(features, batch[Columns.STATE_IN])
        return features, {Columns.STATE_OUT: state}

    def _critic_features(self, batch: Batch, features: Tensor | None) -> Tensor:
        """The features that the value head reads. `features` are the policy's; None: they are computed if needed."""
        if not self.model_config["separate_critic"]:
            return self.features(batch)[0] if features is None else features
        own = self.critic_encoder(split_mask(batch[Columns.OBS])[0])
        if not self.critic_reads_features():
            return own
        known = self.features(batch)[0] if features is None else features
        return torch.cat([own, known.detach()], -1)

    def _forward(self, batch: Batch, **kwargs: object) -> Batch:
        features, outputs = self.features(batch)
        return outputs | {Columns.ACTION_DIST_INPUTS: self._logits(batch, features)}

    def _forward_train(self, batch: Batch, **kwargs: object) -> Batch:
        features, outputs = self.features(batch)
        outputs = outputs | {Columns.ACTION_DIST_INPUTS: self._logits(batch, features)}
        return outputs | {Columns.EMBEDDINGS: self._critic_features(batch, features)} if self.has_critic else outputs

    def _logits(self, batch: Batch, features: Tensor) -> Tensor:
        _, mask = split_mask(batch[Columns.OBS])
        return mask_logits(self.policy_head(features), mask)

    def compute_values(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        """V(s) for every row: (B,) or (B, T). Only for modules with a critic of their own.

        Args:
            batch: observations and, for a module with a memory, `state_in`.
            embeddings: those that `forward_train` returned for the same batch; None: they are computed.
        """
        if embeddings is None:
            embeddings = self._critic_features(batch, None)
        return self.value_head(embeddings).squeeze(-1)
