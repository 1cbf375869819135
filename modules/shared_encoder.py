"""One encoder under several policies: what one agent learns to see, all see."""

from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule

from marl_tune.modules.base import ActorCritic


class SharedEncoderModules(MultiRLModule):
    """The policies of a team over one encoder, as in RLlib's documentation of shared encoders: the same torch module
    in each of them, so that a learner trains all of them with one optimizer, and each checkpoint holds it whole.

    Raises:
        ValueError: if there is one policy only, or their observations differ.
    """

    def setup(self) -> None:
        """Builds the policies, and puts the first one's encoder into all; RLlib calls it once."""
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

    Its gradient is the sum of what all policies ask of it. A separate critic keeps an encoder of its own.
    """

    team_class = SharedEncoderModules
