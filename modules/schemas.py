"""The settings of every module: types, meanings and ranges. The values are in conf/module/.

A field that is marked with LIVE can change while a trial runs. The other fields determine the weights of the network.
This file imports neither torch nor ray.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

ACTIVATIONS = ("tanh", "relu", "elu", "gelu", "silu")
TRACE_RULES = ("oja", "decay")
MESSAGE_TYPES = ("continuous", "discrete")
LIVE = {"live": True}


def live_fields(schema: "type[ModuleConfig]") -> tuple[str, ...]:
    """Names of the fields of a config dataclass that a running trial may change."""
    return tuple(f.name for f in fields(schema) if f.metadata.get("live"))


def _require(holds: bool, key: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"module.{key} must {rule}, got {value}")


def _at_least_one(config: "ModuleConfig", *keys: str) -> None:
    for key in keys:
        _require(getattr(config, key) >= 1, key, "be at least 1", getattr(config, key))


def _layer_sizes(config: "ModuleConfig", key: str) -> None:
    sizes: Iterable[int] = list(getattr(config, key))
    _require(bool(sizes) and min(sizes) >= 1, key, "be a list of sizes of at least 1, one per layer", sizes)


@dataclass
class ModuleConfig:
    """Settings of every module: of the encoder of observations, and of the critic."""

    name: str
    # stem of the module, e.g. mlp
    hidden_dims: list[int]
    # sizes of the encoder's dense layers, one or more
    activation: str
    # activation after each of those layers: tanh | relu | elu | gelu | silu
    separate_critic: bool
    # true: the critic has an encoder of its own; false: it reads the actor's features

    def __post_init__(self) -> None:
        _layer_sizes(self, "hidden_dims")
        _require(self.activation in ACTIVATIONS, "activation", f"be one of {', '.join(ACTIVATIONS)}", self.activation)


@dataclass
class ImageFields(ModuleConfig):
    """Convolutions before the dense layers. They are used if the observation is an image, not for a vector."""

    conv_filters: list[list[int]]
    # [channels, kernel size, stride] of each layer, all >= 1; a fourth number is its padding, >= 0 (default: half the
    # kernel size); []: an image is flattened into a vector of pixels

    def __post_init__(self) -> None:
        super().__post_init__()
        for layer in self.conv_filters:
            _require(
                len(layer) in (3, 4) and min(layer[:3]) >= 1 and min(layer) >= 0,
                "conv_filters",
                "hold [channels, kernel, stride] of at least 1 for each layer, and at most a padding of at least 0",
                [list(layer) for layer in self.conv_filters],
            )


def paddings(conv_filters: Sequence[Sequence[int]]) -> list[int]:
    """Padding of each convolution on every side of its input. The default is half the kernel size."""
    return [layer[3] if len(layer) > 3 else layer[1] // 2 for layer in conv_filters]


def check_image(height: int, width: int, conv_filters: Sequence[Sequence[int]]) -> None:
    """Checks that an image is large enough for the convolutions.

    Raises:
        ValueError: if a kernel is larger than its padded input.
    """
    sides = [height, width]
    for (_, kernel, stride, *_), padding in zip(conv_filters, paddings(conv_filters), strict=True):
        read = [side + 2 * padding for side in sides]
        rule = f"have kernels no larger than what they read, {read[0]} x {read[1]} with its padding"
        _require(min(read) >= kernel, "conv_filters", rule, [list(layer) for layer in conv_filters])
        sides = [(side - kernel) // stride + 1 for side in read]


@dataclass
class SequenceFields(ModuleConfig):
    """Settings of a module with a state, which is trained on sequences."""

    max_seq_len: int
    # steps of a training sequence, >= 1; gradients flow through all of them

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one(self, "max_seq_len")


@dataclass
class RecurrentFields(SequenceFields, ImageFields):
    """A recurrent network behind the encoder."""

    state_dim: int
    # units of each recurrent layer, >= 1
    num_layers: int
    # recurrent layers, >= 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one(self, "state_dim", "num_layers")


@dataclass
class PlasticFields(SequenceFields):
    """A plastic layer behind the encoder."""

    plastic_dim: int
    # size d of the plastic layer, >= 1; each agent's trace has d * d entries
    trace_rule: str
    # how the trace changes: oja (forgets where the output is active) | decay (forgets at a constant rate)
    trace_rate: float
    # initial value of the learnt rate eta of that change, in (0, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one(self, "plastic_dim")
        _require(self.trace_rule in TRACE_RULES, "trace_rule", f"be one of {', '.join(TRACE_RULES)}", self.trace_rule)
        _require(0.0 < self.trace_rate < 1.0, "trace_rate", "be above 0 and below 1", self.trace_rate)


@dataclass
class AttentionFields(ModuleConfig):
    """Attention over the direction tokens of the observation, or over messages of other agents."""

    attention_dim: int
    # width of tokens, queries, keys and values over all heads, >= 1; for messages, also the width of what is read
    num_heads: int
    # attention heads, >= 1; divides attention_dim

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one(self, "attention_dim", "num_heads")
        _require(
            self.attention_dim % self.num_heads == 0,
            "num_heads",
            f"divide module.attention_dim ({self.attention_dim})",
            self.num_heads,
        )


@dataclass
class CommunicationFields(AttentionFields):
    """Messages between the agents of one copy of the world, within each step."""

    comm_channels: int
    # messages that an agent sends at once, >= 0; 0: no channel, all agents read zeros
    message_dim: int
    # numbers in a continuous message, >= 1; number of symbols of a discrete message, >= 2
    message_type: str
    # continuous: numbers in (-1, 1) | discrete: one symbol, drawn in training, the most likely in inference
    gumbel_temperature: float = field(metadata=LIVE)
    # temperature of the gradient through discrete messages, above 0; lower: less bias; higher: less variance
    comm_rounds: int
    # exchanges of messages in a step, >= 1; each has weights of its own
    comm_range: float | None = field(metadata=LIVE)
    # largest Euclidean distance over which agents receive messages, >= 0, in the unit of the positions in observations;
    # null: all agents receive all messages
    comm_cut: bool = field(metadata=LIVE)
    # true: no message arrives, all agents read zeros; the weights are the same, for comparison

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.comm_channels >= 0, "comm_channels", "be at least 0", self.comm_channels)
        _at_least_one(self, "message_dim", "comm_rounds")
        types = ", ".join(MESSAGE_TYPES)
        _require(self.message_type in MESSAGE_TYPES, "message_type", f"be one of {types}", self.message_type)
        chosen = self.message_type == "continuous" or self.message_dim >= 2
        _require(chosen, "message_dim", "be at least 2 where module.message_type is discrete", self.message_dim)
        temperature, reach = self.gumbel_temperature, self.comm_range
        _require(0.0 < temperature < float("inf"), "gumbel_temperature", "be finite and above 0", temperature)
        finite = reach is None or 0.0 <= reach < float("inf")
        _require(finite, "comm_range", "be finite and at least 0, or null", reach)


@dataclass
class IcmFields(ModuleConfig):
    """An intrinsic curiosity module (ICM) beside the actor and the critic."""

    intrinsic_weight: float = field(metadata=LIVE)
    # factor on the normalised intrinsic reward, which is added to the world's reward; finite and >= 0
    icm_loss_weight: float = field(metadata=LIVE)
    # factor on the curiosity loss, finite and >= 0
    icm_beta: float = field(metadata=LIVE)
    # weight of the forward model's loss in the curiosity loss, in [0, 1]; the inverse model's weight is 1 - icm_beta
    icm_feature_dim: int
    # size of the features in which the next observation is predicted, >= 1
    icm_hidden_dims: list[int]
    # sizes of the dense layers of the feature encoder, the forward and the inverse model, one or more

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("intrinsic_weight", "icm_loss_weight"):
            value = getattr(self, key)
            _require(0.0 <= value < float("inf"), key, "be finite and at least 0", value)
        _require(0.0 <= self.icm_beta <= 1.0, "icm_beta", "be in [0, 1]", self.icm_beta)
        _at_least_one(self, "icm_feature_dim")
        _layer_sizes(self, "icm_hidden_dims")


@dataclass
class MlpConfig(ModuleConfig):
    """Settings of `mlp`."""


@dataclass
class CnnConfig(ImageFields):
    """Settings of `cnn`."""


@dataclass
class LstmConfig(RecurrentFields):
    """Settings of `lstm`."""


@dataclass
class GruConfig(RecurrentFields):
    """Settings of `gru`."""


@dataclass
class PlasticityConfig(PlasticFields, ImageFields):
    """Settings of `plasticity`."""


@dataclass
class PheromoneAttentionConfig(AttentionFields):
    """Settings of `pheromone_attention`."""


@dataclass
class CommunicationConfig(CommunicationFields, ImageFields):
    """Settings of `communication`."""


@dataclass
class CuriosityConfig(IcmFields, ImageFields):
    """Settings of `curiosity`."""


@dataclass
class AutoregressiveConfig(ImageFields):
    """Settings of `autoregressive`."""

    head_dim: int
    # units of the dense layer of each component's head, >= 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one(self, "head_dim")


@dataclass
class SharedEncoderConfig(ImageFields):
    """Settings of `shared_encoder`."""


@dataclass
class AntColonyConfig(IcmFields, PlasticFields, AttentionFields):
    """Settings of `ant_colony`."""
