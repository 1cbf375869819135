"""Settings of `algorithm`."""

from dataclasses import dataclass
from typing import Any, ClassVar

from marl_tune.config.errors import invalid
from marl_tune.config.range_checks import above, at_least, named, one_of, within


@dataclass
class ActorCriticConfig:
    """Settings that all on-policy actor-critics have in common; RLlib's names.

    Advantages are always by generalised advantage estimation (Schulman et al. 2016, https://arxiv.org/abs/1506.02438).
    Every field but `name` can change in a live trial.
    """

    NAME: ClassVar[str]

    name: str  # of the option
    lr: float  # step size of Adam, above 0
    lr_end_factor: float  # share of lr that is left where stop ends the trial, reached linearly, [0, 1]; 1: constant
    gamma: float  # discount a step, [0, 1]
    lambda_: float  # decay of the advantage estimate a step, [0, 1]: 0 = one-step, 1 = Monte Carlo
    reward_scale: float  # factor on rewards as they are learned from, above 0; returns are reported without it
    entropy_coeff: float  # weight of the entropy bonus in the loss, at least 0
    entropy_end_factor: float  # as lr_end_factor, of entropy_coeff
    use_critic: bool  # train the value function; off: advantages have no baseline
    vf_loss_coeff: float  # weight of the value loss, at least 0
    train_batch_size: int  # agent-steps an iteration, all modules and learners together, at least 1
    grad_clip: float | None  # limit of the gradient, above 0, measured as grad_clip_by says; null: none
    grad_clip_by: str  # global_norm (of a module's whole gradient) | norm (of each parameter) | value (of each entry)
    adam_beta1: float  # decay of Adam's running mean, [0, 1)
    adam_beta2: float  # decay of Adam's running square, [0, 1)
    adam_eps: float  # added to Adam's denominator, above 0
    weight_decay: float  # L2 penalty added to the gradient, at least 0

    def __post_init__(self) -> None:
        named("algorithm.name", self.name, self.NAME)
        for key in ("lr", "reward_scale", "grad_clip", "adam_eps"):
            above(f"algorithm.{key}", getattr(self, key), 0)
        for key in ("entropy_coeff", "vf_loss_coeff", "weight_decay"):
            at_least(f"algorithm.{key}", getattr(self, key), 0)
        at_least("algorithm.train_batch_size", self.train_batch_size, 1)
        for key in ("gamma", "lambda_", "lr_end_factor", "entropy_end_factor"):
            within(f"algorithm.{key}", getattr(self, key), 0, 1)
        for key in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, key) < 1:
                raise invalid(f"algorithm.{key}", "be at least 0 and below 1", getattr(self, key))
        one_of("algorithm.grad_clip_by", self.grad_clip_by, ("global_norm", "norm", "value"))

    @property
    def passes(self) -> int:
        """Passes over each train batch."""
        return 1

    @property
    def minibatch(self) -> int | None:
        """Agent-steps of one gradient step; None: the whole train batch."""
        return None


@dataclass
class A2cConfig(ActorCriticConfig):
    """Advantage actor-critic (Mnih et al. 2016, https://arxiv.org/abs/1602.01783), synchronous: one gradient step a
    train batch. Every field but `name` can change in a live trial."""

    NAME = "a2c"


@dataclass
class PpoConfig(ActorCriticConfig):
    """Proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347); RLlib's names.

    Every field but `name` can change in a live trial.
    """

    NAME = "ppo"

    clip_param: float  # the new policy's probability ratio is clipped to [1 - c, 1 + c], above 0
    vf_clip_param: float | None  # largest squared value error that counts, above 0; null: no limit
    use_kl_loss: bool  # add kl_coeff * KL(old, new) to the loss
    kl_coeff: float  # first weight of that term, at least 0; adapted towards kl_target
    kl_target: float  # KL an update aims at, nats, above 0
    num_epochs: int  # passes over each batch, at least 1
    minibatch_size: int  # agent-steps a gradient step, from 1 to train_batch_size / learners
    shuffle_batch_per_epoch: bool  # draw the minibatches anew in every epoch

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("clip_param", "vf_clip_param", "kl_target"):
            above(f"algorithm.{key}", getattr(self, key), 0)
        at_least("algorithm.kl_coeff", self.kl_coeff, 0)
        for key in ("num_epochs", "minibatch_size"):
            at_least(f"algorithm.{key}", getattr(self, key), 1)

    @property
    def passes(self) -> int:
        return self.num_epochs

    @property
    def minibatch(self) -> int | None:
        return self.minibatch_size


@dataclass
class MappoConfig(PpoConfig):
    """PPO with a critic that all agents share (Yu et al. 2022, https://arxiv.org/abs/2103.01955). Every field but
    `name` can change in a live trial."""

    NAME = "mappo"

    normalise_values: bool  # the critic learns targets of mean 0 and deviation 1, by running moments
    huber_delta: float | None  # value error from which on the loss is linear, above 0; null: squared throughout
    clip_values: bool  # a value that moves more than clip_param from the old one has no further gradient from its error
    critic_lr: float | None  # step size of the critic's Adam, above 0; null: lr

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("huber_delta", "critic_lr"):
            above(f"algorithm.{key}", getattr(self, key), 0)


def critic_settings(algorithm: ActorCriticConfig) -> dict[str, Any]:
    """What the algorithm says of the central critic's loss, by the names of `CriticSettings`.

    Without settings of its own the loss is squared and unclipped, and the step size is the actors'.
    """
    if not isinstance(algorithm, MappoConfig):
        return {"lr": algorithm.lr, "normalise_values": False, "huber_delta": None, "clip_param": None}
    return {
        "lr": algorithm.lr if algorithm.critic_lr is None else algorithm.critic_lr,
        "normalise_values": algorithm.normalise_values,
        "huber_delta": algorithm.huber_delta,
        "clip_param": algorithm.clip_param if algorithm.clip_values else None,
    }
