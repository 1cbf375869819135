"""A network that chooses the components of an action one after the other."""

from ray.rllib.core.columns import Columns
from torch import nn

from marl_tune.modules.base import ActorCritic, Batch
from marl_tune.modules.parts.autoregressive import AutoregressiveHead
from marl_tune.modules.parts.observations import split_mask


class Autoregressive(ActorCritic):
    """An encoder, and a head that chooses each component of an action given the components before it. It is meant for
    action spaces of several components (MultiDiscrete, Box).

    Independent heads cannot express "tool 1 at place A, or tool 2 at place B". As in RLlib's documentation of
    autoregressive distributions, the module chooses the actions itself. It returns the distribution inputs of each
    factor given the choices before it, so that RLlib's own distribution computes the joint log p. Its entropy and KL
    are those of the factors along the chosen actions: unbiased estimates of the joint ones.
    """

    def build_policy_head(self, in_dim: int) -> nn.Module:
        """See `ActorCritic.build_policy_head`."""
        settings = self.model_config
        return AutoregressiveHead(self.action_space, in_dim, settings["head_dim"], settings["activation"])

    def _forward_inference(self, batch: Batch, **kwargs: object) -> Batch:
        return self._act(batch, greedy=True)

    def _forward_exploration(self, batch: Batch, **kwargs: object) -> Batch:
        return self._act(batch, greedy=False)

    def _act(self, batch: Batch, greedy: bool) -> Batch:
        features, _ = self.features(batch)
        inputs, actions = self.policy_head(features, split_mask(batch[Columns.OBS])[1], greedy=greedy)
        logp = self.action_dist_cls.from_logits(inputs).logp(actions)
        return {Columns.ACTION_DIST_INPUTS: inputs, Columns.ACTIONS: actions, Columns.ACTION_LOGP: logp}

    def _forward_train(self, batch: Batch, **kwargs: object) -> Batch:
        features, _ = self.features(batch)
        mask = split_mask(batch[Columns.OBS])[1]
        inputs, _ = self.policy_head(features, mask, actions=batch.get(Columns.ACTIONS))
        outputs = {Columns.ACTION_DIST_INPUTS: inputs}
        if self.has_critic:
            outputs[Columns.EMBEDDINGS] = self._critic_features(batch, features)
        return outputs
