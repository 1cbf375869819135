"""A critic that reads the state of the world, for actors that see only their own observations."""

from collections.abc import Mapping

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from marl_tune.modules.base import VALUE_GAIN, Batch, Settings
from marl_tune.modules.parts.encoders import make_encoder
from marl_tune.modules.parts.exact_state import load_float64
from marl_tune.modules.parts.layers import dense
from marl_tune.modules.parts.running_moments import RunningMoments


class CentralCritic(TorchRLModule, ValueFunctionAPI, InferenceOnlyAPI):
    """state -> encoder -> one value an agent: centralised training, decentralised execution (Lowe et al. 2017,
    https://arxiv.org/abs/1706.02275; Yu et al. 2022, https://arxiv.org/abs/2103.01955).

    Differs from both papers: they evaluate the critic once per agent. Here one pass over the state gives the values of
    all agents.

    This module acts for no agent; only learners build it. `observation_space` is the space of the state. `model_config`
    is the config of the agents' modules as a dict, of which the settings of the encoder are read, with the key `agents`
    in addition: the agents' ids, in the order of the values.

    The outputs of the head are the values, or values that are normalised by running moments of their targets: see
    `set_normalised`. The moments, and whether values are normalised, are saved with the weights.
    """

    model_config: Settings
    normalised: Tensor  # bool scalar: whether the head's outputs are normalised values

    def setup(self) -> None:
        """Builds the parts; RLlib calls it once."""
        settings = self.model_config
        self.agents: tuple[str, ...] = tuple(settings["agents"])
        self.encoder = make_encoder(
            self.observation_space, settings["hidden_dims"], settings["activation"], settings.get("conv_filters", ())
        )
        self.value_head = dense(self.encoder.out_dim, len(self.agents), VALUE_GAIN)
        self.moments = RunningMoments()
        self.register_buffer("normalised", torch.zeros((), dtype=torch.bool))

    def get_non_inference_attributes(self) -> list[str]:
        """All parts: acting needs no critic, so env runners do not get its weights."""
        return ["encoder", "value_head", "moments", "normalised"]

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Loads weights and moments. The moments keep their full precision."""
        super().set_state(state)
        load_float64(self, state)

    def apply_live_settings(self, model_config: Settings) -> None:
        """Sets the settings that can change while a trial runs; this module has none."""

    def outputs(self, states: Tensor) -> Tensor:
        """The outputs of the head: states (B, ...) -> (B, agents)."""
        return self.value_head(self.encoder(states))

    def _forward_train(self, batch: Batch, **kwargs: object) -> Batch:
        return {Columns.VF_PREDS: self.outputs(batch[Columns.OBS])}

    def compute_values(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        """V of each agent, in the unit of its return: states (B, ...) -> (B, agents)."""
        return self.values_of(self.outputs(batch[Columns.OBS]))

    def values_of(self, outputs: Tensor) -> Tensor:
        """Values in the unit of the returns, from outputs of the head of any shape."""
        return self.moments.denormalise(outputs) if self.normalised else outputs

    def outputs_for(self, values: Tensor) -> Tensor:
        """The outputs of the head that stand for these values, of any shape."""
        return self.moments.normalise(values) if self.normalised else values

    @torch.no_grad()
    def set_normalised(self, normalised: bool) -> None:
        """Switches the outputs of the head between normalised and plain values. The values themselves do not change.

        The head is rescaled as in Pop-Art (van Hasselt et al. 2016, https://arxiv.org/abs/1602.07714).
        """
        if normalised == bool(self.normalised):
            return
        dtype = self.value_head.weight.dtype
        mean, deviation = self.moments.mean.to(dtype), self.moments.deviation.to(dtype)
        if normalised:
            self.value_head.weight.div_(deviation)
            self.value_head.bias.sub_(mean).div_(deviation)
        else:
            self.value_head.weight.mul_(deviation)
            self.value_head.bias.mul_(deviation).add_(mean)
        self.normalised.fill_(normalised)
