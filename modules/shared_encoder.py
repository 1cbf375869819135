"""One encoder that several policies share."""

from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule

from marl_tune.modules.base import ActorCritic


class SharedEncoderModules(MultiRLModule):
    """The policies of a team, with one encoder, as in RLlib's documentation of shared encoders.

    Each policy holds the same torch module as its encoder. So a learner trains all policies with one optimizer, and the
    checkpoint of each policy holds the whole encoder.

    Raises:
        ValueError: if there is only one policy, or their observation spaces differ.
    """

    def setup(self) -> None:
        """Builds the policies, and replaces each one's encoder by that of the first. RLlib calls it once."""
        super().setup()
        policies = {m: policy for m, policy in self._rl_modules.items() if isinstance(policy, SharedEncoder)}
        if len(policies) < 2:
            rule = "one policy for each of several agents or roles (sharing=independent, sharing=roles)"
            raise ValueError(f"module=shared_encoder needs {rule}, got {', '.join(policies)} only")
        (name, first), *others = policies.items()
        for other_name, other in others:
            if other.observation_space != first.observation_space:
                rule = f"agents that see alike: {name} sees {first.observation_space}"
                raise ValueError(f"module=shared_encoder needs {rule}, {other_name} sees {other.observation_space}")
            other.encoder = first.encoder


class SharedEncoder(ActorCritic):
    """Heads over an encoder (dense layers, convolutions for images) that all policies of the team share.

    The gradient of the encoder is the sum of the gradients of all policies. A separate critic has its own encoder.
    """

    team_class = SharedEncoderModules
