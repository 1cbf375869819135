"""The intrinsic curiosity module: formulas, gradient paths, normalisation, settings that change while it lives."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from marl_tune import modules
from marl_tune.modules import schemas, testing
from marl_tune.modules.curiosity import IntrinsicRewardAPI
from marl_tune.modules.parts.icm import ActionCode
from marl_tune.modules.parts.running_deviation import RunningDeviation

torch.set_num_threads(1)  # networks this small are slower on several

VECTOR = gym.spaces.Box(0.0, 1.0, (9,), np.float32)
DISCRETE, MULTI, BOX = gym.spaces.Discrete(5), gym.spaces.MultiDiscrete([3, 2]), gym.spaces.Box(-1.0, 1.0, (2,))
UNBOUNDED = gym.spaces.Box(-np.inf, np.inf, (2,))
NAMES = ["curiosity", "ant_colony"]


def transitions(module, rows=16, seed=3):
    """Random observations, actions and next observations."""
    actions = torch.as_tensor(np.array([module.action_space.sample() for _ in range(rows)]))
    return testing.observations(module, (rows,), seed), actions, testing.observations(module, (rows,), seed + 1)


def reached(parameters):
    return [p.grad is not None and bool(p.grad.any()) for p in parameters]


def test_these_are_all_the_curious_modules():
    curious = {n for n in modules.MODULES if issubclass(modules.module_class(n), IntrinsicRewardAPI)}
    assert curious == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("separate", [True, False])
def test_its_loss_and_that_of_actor_and_critic_share_no_parameter(name, separate):
    module = testing.build(name, VECTOR, DISCRETE, separate_critic=separate)
    own = dict(module.icm.named_parameters())
    others = [p for n, p in module.named_parameters() if not n.startswith("icm.")]
    module.curiosity_loss(*transitions(module))[0].backward()
    assert all(reached(own.values()))
    assert not any(reached(others))
    module.zero_grad()
    batch = testing.batch_of(module)
    out = module.forward_train(batch)
    (out[Columns.ACTION_DIST_INPUTS].square().sum() + module.compute_values(batch).sum()).backward()
    assert not any(reached(own.values()))


def test_features_learn_from_the_inverse_model_only():
    module = testing.build("curiosity", VECTOR, DISCRETE)
    icm = module.icm
    inverse, forward = icm.losses(*transitions(module))
    forward.backward()
    assert not any(reached([*icm.phi.parameters(), *icm.inverse_model.parameters()]))
    assert all(reached(icm.forward_model.parameters()))
    icm.zero_grad()
    inverse.backward()
    assert all(reached([*icm.phi.parameters(), *icm.inverse_model.parameters()]))
    assert not any(reached(icm.forward_model.parameters()))


def test_reward_is_half_the_squared_distance_of_predicted_and_true_features():
    module = testing.build("curiosity", VECTOR, DISCRETE)
    obs, actions, next_obs = transitions(module, rows=4)
    rewards = module.intrinsic_rewards(obs, actions, next_obs)
    assert rewards.shape == (4,)
    assert not rewards.requires_grad
    for i in range(4):
        one_hot = torch.zeros(5)
        one_hot[actions[i]] = 1.0
        predicted = module.icm.forward_model(torch.cat([module.icm.phi(obs[i]), one_hot]))
        distance = ((predicted - module.icm.phi(next_obs[i])) ** 2).sum()
        assert rewards[i].item() == pytest.approx(0.5 * distance.item(), rel=1e-4)
    assert module.icm.losses(obs, actions, next_obs)[1].item() == pytest.approx(rewards.mean().item(), rel=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.2, 1.0])
def test_loss_weighs_the_two_models_by_beta(beta):
    module = testing.build("curiosity", VECTOR, DISCRETE, icm_beta=beta)
    loss, logged = module.curiosity_loss(*transitions(module))
    inverse, forward = logged["icm_inverse_loss"].item(), logged["icm_forward_loss"].item()
    assert loss.item() == pytest.approx((1 - beta) * inverse + beta * forward, rel=1e-5)
    assert logged["icm_loss"].item() == loss.item()
    assert inverse != pytest.approx(forward)


def test_action_codes_and_inverse_losses():
    discrete, multi, box = ActionCode(DISCRETE), ActionCode(MULTI), ActionCode(BOX)
    assert discrete.encode(torch.tensor([3])).tolist() == [[0, 0, 0, 1, 0]]
    assert multi.encode(torch.tensor([[2, 0]])).tolist() == [[0, 0, 1, 1, 0]]
    assert box.encode(torch.tensor([[0.5, -3.0]])).tolist() == [[0.5, -1.0]]  # as the world gets it
    assert ActionCode(UNBOUNDED).encode(torch.tensor([[0.5, -3.0]])).tolist() == [[0.5, -3.0]]
    code = discrete.encode(torch.tensor([3, 1]))
    assert discrete.loss(torch.zeros(2, 5), code).item() == pytest.approx(math.log(5))
    code = multi.encode(torch.tensor([[2, 0]]))
    assert multi.loss(torch.zeros(1, 5), code).item() == pytest.approx((math.log(3) + math.log(2)) / 2)
    assert box.loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.5)


@pytest.mark.parametrize("space", [DISCRETE, MULTI, BOX])
def test_the_inverse_model_learns_the_action_and_the_forward_model_the_world(space):
    """Each action shifts the observation in its own way, so both can be learnt; unlike a world that was not seen."""
    space.seed(0)
    torch.manual_seed(0)
    module = testing.build("curiosity", VECTOR, space, icm_hidden_dims=[32], icm_beta=0.5)
    optimizer = torch.optim.Adam(module.icm.parameters(), lr=0.01)
    shift = torch.randn(module.icm.code.dim, 9)
    obs, actions, _ = transitions(module, rows=256)
    next_obs = obs + module.icm.code.encode(actions) @ shift
    before = module.curiosity_loss(obs, actions, next_obs)[1]
    for _ in range(150):
        optimizer.zero_grad()
        loss, after = module.curiosity_loss(obs, actions, next_obs)
        loss.backward()
        optimizer.step()
    assert after["icm_inverse_loss"] < 0.3 * before["icm_inverse_loss"]
    seen = module.intrinsic_rewards(obs, actions, next_obs).mean()
    unseen = module.intrinsic_rewards(obs, actions, next_obs - 2.0 * shift.sum(0)).mean()
    assert unseen > 5.0 * seen


def test_running_deviation_is_that_of_all_values_however_they_came():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 3.0 + 1.0
    whole, parts = RunningDeviation(), RunningDeviation()
    whole.update(values)
    for part in values.split([1, 299, 0, 700]):
        parts.update(part)
    expected = values.square().mean().sqrt()
    assert whole.deviation.item() == pytest.approx(expected.item(), rel=1e-6)
    assert parts.deviation.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(whole(values), values / expected)
    assert whole(values).dtype == torch.float32


@pytest.mark.parametrize("constant", [0.0, 1e-3])
def test_rewards_that_are_all_alike_are_normalised_to_finite_numbers(constant):
    module = testing.build("curiosity", VECTOR, DISCRETE)
    normalised = module.update_and_normalise(torch.full((8,), constant))
    assert torch.allclose(normalised, torch.full((8,), float(constant > 0)))


def test_the_deviation_is_saved_with_the_weights_and_used_after_a_load():
    module = testing.build("curiosity", VECTOR, DISCRETE)
    module.update_and_normalise(torch.tensor([100.0, 300.0]))
    twin = testing.build("curiosity", VECTOR, DISCRETE)
    twin.set_state(module.get_state())
    assert twin.icm.running_deviation.count == 2
    raw = torch.tensor([50.0])
    assert torch.equal(twin.update_and_normalise(raw), module.update_and_normalise(raw))


def test_what_acts_only_has_no_icm():
    module = testing.build("ant_colony", VECTOR, DISCRETE, inference_only=True)
    assert not any(name.startswith(("icm", "critic", "value")) for name in module.state_dict())
    assert module.is_stateful()
    module.forward_inference(testing.batch_of(module))


@pytest.mark.parametrize("name", NAMES)
def test_live_settings_are_taken_over_and_others_are_not(name):
    module, other = (testing.build(name, VECTOR, DISCRETE) for _ in range(2))
    assert schemas.live_fields(modules.config_class(name)) == ("intrinsic_weight", "icm_loss_weight", "icm_beta")
    new = module.model_config | {"intrinsic_weight": 0.7, "icm_loss_weight": 0.6, "icm_beta": 0.9, "hidden_dims": [1]}
    before = dict(module.model_config)
    module.apply_live_settings(new)
    assert (module.intrinsic_weight, module.loss_weight) == (0.7, 0.6)
    loss, logged = module.curiosity_loss(*transitions(module))
    expected = 0.1 * logged["icm_inverse_loss"] + 0.9 * logged["icm_forward_loss"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert module.model_config["hidden_dims"] == before["hidden_dims"]
    assert other.model_config == before


def test_modules_without_live_settings_ignore_them():
    without = [name for name in modules.MODULES if not schemas.live_fields(modules.config_class(name))]
    assert "mlp" in without
    assert not set(without) & set(NAMES)
    for name in without:
        module = testing.build(name, VECTOR, DISCRETE)
        before = dict(module.model_config)
        module.apply_live_settings(before | {"hidden_dims": [1]})
        assert module.model_config == before


def test_the_action_mask_is_no_part_of_what_is_predicted():
    space = gym.spaces.Dict({"observation": VECTOR, "action_mask": gym.spaces.MultiBinary(5)})
    module = testing.build("curiosity", space, DISCRETE)
    obs, actions, next_obs = transitions(module)
    rewards = module.intrinsic_rewards(obs, actions, next_obs)
    changed = next_obs | {"action_mask": 1 - next_obs["action_mask"]}
    assert torch.equal(module.intrinsic_rewards(obs, actions, changed), rewards)
