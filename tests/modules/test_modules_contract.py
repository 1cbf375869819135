"""The contract of modules/testing.py on every registered module; modules that break it; spaces and settings refused."""

import dataclasses
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from marl_tune import modules
from marl_tune.modules import schemas, testing
from marl_tune.modules.communication import Communication
from marl_tune.modules.mlp import Mlp
from marl_tune.modules.parts.layers import ACTIVATIONS
from marl_tune.modules.plasticity import Plasticity
from marl_tune.testing import BOX, DISCRETE, IMAGE, SPACES, VECTOR, masked

torch.set_num_threads(1)  # networks this small are slower on several

ROOT = Path(__file__).parents[2]
NOT_MODULES = {"__init__", "base", "central_critic", "schemas", "testing"}

CASES = [
    pytest.param(name, *spaces, separate, id=f"{name}-{label}-{'separate' if separate else 'shared'}")
    for name in modules.MODULES
    for label, spaces in SPACES.items()
    for separate in (True, False)
    if "image" not in label or not modules.module_class(name).needs_tokens
]


@pytest.mark.parametrize(("name", "observation_space", "action_space", "separate"), CASES)
def test_module_keeps_the_contract(name, observation_space, action_space, separate):
    for check in testing.CHECKS:
        check(testing.build(name, observation_space, action_space, separate_critic=separate))


class SharedTrace(Plasticity):
    """One trace for the whole batch."""

    def features(self, batch):
        mean = {name: part.mean(0, keepdim=True).expand_as(part) for name, part in batch[Columns.STATE_IN].items()}
        return super().features(batch | {Columns.STATE_IN: mean})


class TraceOfTraining(Plasticity):
    """A trace that changes in train mode only."""

    def features(self, batch):
        features, outputs = super().features(batch)
        return features, outputs if self.training else {Columns.STATE_OUT: batch[Columns.STATE_IN]}


class Dropout(Mlp):
    """Acts in one way and learns in another."""

    def features(self, batch):
        features, outputs = super().features(batch)
        return torch.nn.functional.dropout(features, 0.5, self.training), outputs


class Unused(Mlp):
    """A layer that nothing reads."""

    def setup(self):
        super().setup()
        self.unused = torch.nn.Linear(2, 2)


class MasksAreAdvice(Mlp):
    """Forbidden actions are only less likely."""

    def _logits(self, batch, features):
        return self.policy_head(features) - (1.0 - batch[Columns.OBS]["action_mask"].float())


class SeesTheFuture(Plasticity):
    """The first row reads the last."""

    def features(self, batch):
        features, outputs = super().features(batch)
        return features + features[:, -1:], outputs


class KnowsPlaces(Communication):
    """The first agent of a team is told apart from the others."""

    def features(self, batch):
        features, outputs = super().features(batch)
        return features + torch.eye(testing.N)[:, :1], outputs


class Deaf(Communication):
    """Nobody hears anybody."""

    def _hears(self, obs):
        return torch.zeros_like(self.others)


class Untaught(Communication):
    """What is heard trains nobody who said it."""

    def features(self, batch):
        features = self.encoder(batch[Columns.OBS]["observation"])
        return features + (features.sum(-2, keepdim=True) - features).detach(), {}


class Crowd(Communication):
    """Teams hear each other."""

    def features(self, batch):
        features, outputs = super().features(batch)
        return features + features.mean((0, 1)), outputs


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (SharedTrace, testing.check_rows_apart),
        (TraceOfTraining, testing.check_ratio),
        (Dropout, testing.check_ratio),
        (Unused, testing.check_gradients),
        (MasksAreAdvice, testing.check_masks),
        (SeesTheFuture, testing.check_padding),
        (KnowsPlaces, testing.check_teams),
        (Deaf, testing.check_teams),
        (Untaught, testing.check_teams),
        (Crowd, testing.check_rows_apart),
    ],
)
def test_contract_rejects_a_broken_module(broken, check):
    name = next(
        name for name in ("plasticity", "communication", "mlp") if issubclass(broken, modules.module_class(name))
    )
    module = broken(observation_space=masked(VECTOR, 5), action_space=DISCRETE, model_config=testing.settings_of(name))
    with pytest.raises(AssertionError):
        check(module)


def test_registry_files_and_schemas_agree():
    stems = set(modules.MODULES.own)
    assert {path.stem for path in (ROOT / "modules").glob("*.py")} - NOT_MODULES == stems
    configs = {
        name
        for name, value in vars(schemas).items()
        if dataclasses.is_dataclass(value) and name.endswith("Config") and name != "ModuleConfig"
    }
    assert configs == {modules.config_class(stem).__name__ for stem in stems}
    for stem in stems:
        assert dataclasses.fields(modules.config_class(stem))[0].name == "name"
        assert modules.config_class(stem).__name__ == modules.module_class(stem).__name__ + "Config"
    assert set(ACTIVATIONS) == set(schemas.ACTIVATIONS)


def test_unknown_module_names_the_known_ones():
    for look_up in (modules.module_class, modules.config_class):
        with pytest.raises(ValueError, match=r"module\.name must be one of ant_colony, .*got 'mpl'"):
            look_up("mpl")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mlp", {"hidden_dims": []}, r"module\.hidden_dims must be a list of sizes .*, got \[\]"),
        ("mlp", {"hidden_dims": [64, 0]}, r"module\.hidden_dims must .* at least 1, one per layer, got \[64, 0\]"),
        ("mlp", {"activation": "step"}, r"module\.activation must be one of tanh, .*, got step"),
        ("cnn", {"conv_filters": [[16, 3]]}, r"module\.conv_filters must hold \[channels, kernel, stride\]"),
        ("cnn", {"conv_filters": [[16, 3, 0]]}, r"module\.conv_filters must .*, got \[\[16, 3, 0\]\]"),
        ("cnn", {"conv_filters": [[16, 3, 1, -1]]}, r"module\.conv_filters must .* padding of at least 0, got \[\[16"),
        ("lstm", {"max_seq_len": 0}, r"module\.max_seq_len must be at least 1, got 0"),
        ("gru", {"state_dim": 0}, r"module\.state_dim must be at least 1, got 0"),
        ("gru", {"num_layers": 0}, r"module\.num_layers must be at least 1, got 0"),
        ("plasticity", {"plastic_dim": 0}, r"module\.plastic_dim must be at least 1, got 0"),
        ("plasticity", {"trace_rule": "hebb"}, r"module\.trace_rule must be one of oja, decay, got hebb"),
        ("plasticity", {"trace_rate": 1.0}, r"module\.trace_rate must be above 0 and below 1, got 1\.0"),
        ("pheromone_attention", {"num_heads": 3}, r"module\.num_heads must divide module\.attention_dim \(8\), got 3"),
        ("communication", {"comm_channels": -1}, r"module\.comm_channels must be at least 0, got -1"),
        ("communication", {"message_dim": 0}, r"module\.message_dim must be at least 1, got 0"),
        ("communication", {"comm_rounds": 0}, r"module\.comm_rounds must be at least 1, got 0"),
        ("communication", {"message_type": "words"}, r"module\.message_type must be one of continuous, discrete"),
        (
            "communication",
            {"message_type": "discrete", "message_dim": 1},
            r"module\.message_dim must be at least 2 where module\.message_type is discrete, got 1",
        ),
        ("communication", {"gumbel_temperature": 0.0}, r"module\.gumbel_temperature must be finite and above 0"),
        ("communication", {"comm_range": -1.0}, r"module\.comm_range must be finite and at least 0, or null, got -1"),
        ("communication", {"num_heads": 3}, r"module\.num_heads must divide"),
        ("curiosity", {"icm_beta": 1.5}, r"module\.icm_beta must be in \[0, 1\], got 1\.5"),
        ("curiosity", {"intrinsic_weight": float("nan")}, r"module\.intrinsic_weight must be finite .*, got nan"),
        ("curiosity", {"icm_loss_weight": -1.0}, r"module\.icm_loss_weight must .* at least 0, got -1\.0"),
        ("curiosity", {"icm_hidden_dims": []}, r"module\.icm_hidden_dims must be a list of sizes"),
        ("ant_colony", {"num_heads": 3}, r"module\.num_heads must divide"),
        ("ant_colony", {"trace_rate": 0.0}, r"module\.trace_rate must be above 0"),
        ("ant_colony", {"icm_feature_dim": 0}, r"module\.icm_feature_dim must be at least 1"),
        ("ant_colony", {"max_seq_len": 0}, r"module\.max_seq_len must be at least 1"),
    ],
)
def test_settings_out_of_range_name_the_key(name, changes, message):
    with pytest.raises(ValueError, match=message):
        testing.settings_of(name, **changes)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (gym.spaces.Discrete(4), DISCRETE, "the observation space must be a vector or image Box"),
        (gym.spaces.Dict({"position": VECTOR}), DISCRETE, "the observation space must be"),
        (VECTOR, gym.spaces.Discrete(3, start=1), "counting from 0"),
        (VECTOR, gym.spaces.MultiDiscrete([[2, 2]]), "with one axis"),
        (VECTOR, gym.spaces.Box(-1, 1, (2, 2)), "with one axis"),
        (VECTOR, gym.spaces.Box(0, 9, (2,), np.int64), "Box of floats"),
        (masked(VECTOR, 2), BOX, "an action_mask needs Discrete or MultiDiscrete actions"),
        (masked(VECTOR, 4), DISCRETE, "the action_mask must have 5 entries"),
    ],
)
def test_spaces_that_no_module_serves_are_refused(observation_space, action_space, message):
    with pytest.raises(ValueError, match=message):
        testing.build("mlp", observation_space, action_space)


def test_a_policy_starts_nearly_uniform():
    for name in modules.MODULES:
        module = testing.build(name, VECTOR, DISCRETE)
        out = module.forward_exploration(testing.batch_of(module))
        assert out[Columns.ACTION_DIST_INPUTS].abs().max() < 0.1


def test_pixels_stay_bytes_until_the_encoder_and_are_scaled_there():
    module = testing.build("cnn", IMAGE, DISCRETE)
    batch = testing.batch_of(module)
    assert batch[Columns.OBS].dtype == torch.uint8
    seen = []
    module.encoder.convolutions.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module.forward_exploration(batch)
    assert torch.allclose(seen[0], batch[Columns.OBS].permute(0, 3, 1, 2) / 255.0)


def test_an_image_smaller_than_the_kernels_is_served():
    module = testing.build("cnn", gym.spaces.Box(0, 1, (2, 2, 1), np.float32), DISCRETE, conv_filters=[[4, 8, 4]] * 2)
    testing.check_shapes(module)


def test_a_padding_that_is_set_takes_the_place_of_half_a_kernel():
    board = gym.spaces.Box(0, 1, (6, 7, 2), np.float32)
    module = testing.build("cnn", board, DISCRETE, conv_filters=[[4, 4, 1, 0], [3, 3, 1]])
    testing.check_shapes(module)
    convolutions = module.encoder.convolutions
    assert convolutions[0](torch.zeros(1, 2, 6, 7)).shape == (1, 4, 3, 4), "each of 12 windows of 4 x 4 once"
    assert convolutions[2](torch.zeros(1, 4, 3, 4)).shape == (1, 3, 3, 4), "half a kernel of 3"


def test_a_mask_that_forbids_everything_gives_finite_numbers():
    module = testing.build("mlp", masked(VECTOR, 5), DISCRETE)
    obs = testing.observations(module, (2,)) | {"action_mask": torch.zeros(2, 5)}
    inputs = module.forward_train({Columns.OBS: obs})[Columns.ACTION_DIST_INPUTS]
    dist = module.get_train_action_dist_cls().from_logits(inputs)
    (gradient,) = torch.autograd.grad((dist.logp(dist.sample()) + dist.entropy() + dist.kl(dist)).sum(), inputs)
    assert dist.entropy().isfinite().all()
    assert gradient.isfinite().all()


def test_a_shared_critic_shares_the_encoder_and_a_separate_one_does_not():
    for separate in (True, False):
        module = testing.build("mlp", VECTOR, DISCRETE, separate_critic=separate)
        module.compute_values(testing.batch_of(module)).sum().backward()
        reached = any(p.grad is not None for p in module.encoder.parameters())
        assert reached == (not separate)


@pytest.mark.parametrize("name", ["gru", "plasticity"])
def test_a_separate_critic_knows_the_memory_but_does_not_train_it(name):
    module = testing.build(name, VECTOR, DISCRETE, separate_critic=True)
    batch = testing.batch_of(module)
    values = module.compute_values(batch)
    other = {key: part + 1.0 for key, part in batch[Columns.STATE_IN].items()}
    assert not testing.same(module.compute_values(batch | {Columns.STATE_IN: other}), values)
    values.sum().backward()
    assert all(p.grad is None for part in (module.encoder, module.memory) for p in part.parameters())


@pytest.mark.parametrize("name", modules.MODULES)
@pytest.mark.parametrize("separate", [True, False])
def test_a_module_beside_a_central_critic_acts_the_same_and_has_none_of_its_own(name, separate):
    settings = testing.settings_of(name, separate_critic=separate)
    torch.manual_seed(0)
    with_own = testing.build(name, VECTOR, DISCRETE, separate_critic=separate)
    actor = type(with_own)(
        observation_space=VECTOR, action_space=DISCRETE, model_config=settings | {"central_critic": True}
    )
    actor.set_state(with_own.get_state())
    batch = testing.batch_of(actor)
    outputs = [module.forward_train(batch) for module in (actor, with_own)]
    assert testing.same(*(out[Columns.ACTION_DIST_INPUTS] for out in outputs))
    assert Columns.EMBEDDINGS not in outputs[0]
    critic = {key for key in with_own.state_dict() if key.startswith(("value_head", "critic_encoder"))}
    assert set(with_own.state_dict()) - set(actor.state_dict()) == critic
    testing.check_ratio(actor)
    testing.check_greedy(actor)
