"""Actions whose components are chosen one after the other: the joint probability is the product of the factors."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from marl_tune.modules.testing import build

VECTOR = gym.spaces.Box(0.0, 1.0, (6,), np.float32)
MULTI = gym.spaces.MultiDiscrete([3, 4, 2])


def sharpened(module):
    """With weights that make the components depend on each other."""
    torch.manual_seed(1)
    for parameter in module.policy_head.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return module


def logp_of(module, obs, actions):
    batch = {Columns.OBS: obs, Columns.ACTIONS: actions}
    inputs = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    return module.get_train_action_dist_cls().from_logits(inputs).logp(actions)


@pytest.fixture
def module():
    return sharpened(build("autoregressive", VECTOR, MULTI))


def test_the_joint_probability_is_the_product_of_the_factors(module):
    every = torch.tensor(list(itertools.product(range(3), range(4), range(2))))
    obs = torch.rand(1, 6).expand(len(every), 6)
    p = logp_of(module, obs, every).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    features, head = module.encoder(obs[:1]), module.policy_head
    first = torch.softmax(head.factors[0](features), -1)[0]
    for a1, a2, a3 in every.tolist():
        one, two = (torch.nn.functional.one_hot(torch.tensor([a]), n) for a, n in ((a1, 3), (a2, 4)))
        second = torch.softmax(head.factors[1](torch.cat([features, one], -1)), -1)[0]
        third = torch.softmax(head.factors[2](torch.cat([features, one, two], -1)), -1)[0]
        row = (every == torch.tensor([a1, a2, a3])).all(-1)
        assert p[row].item() == pytest.approx((first[a1] * second[a2] * third[a3]).item(), rel=1e-5)
    marginal = torch.stack([p[every[:, 1] == a].sum() for a in range(4)])
    given = torch.stack([p[(every[:, 0] == 0) & (every[:, 1] == a)].sum() for a in range(4)]) / first[0]
    assert (marginal - given).abs().max() > 0.02, "the second component depends on the first"


def test_actions_are_drawn_by_these_probabilities(module):
    obs = torch.rand(1, 6).expand(20_000, 6)
    out = module.forward_exploration({Columns.OBS: obs})
    codes = (out[Columns.ACTIONS] * torch.tensor([8, 2, 1])).sum(-1)
    drawn = torch.bincount(codes, minlength=24) / len(codes)
    every = torch.tensor(list(itertools.product(range(3), range(4), range(2))))
    p = logp_of(module, obs[:24], every).exp()
    assert (drawn - p).abs().max() < 5 * (0.25 / len(codes)) ** 0.5
    assert torch.allclose(out[Columns.ACTION_LOGP], logp_of(module, obs, out[Columns.ACTIONS]), atol=1e-6)


def test_entropy_along_the_chosen_actions_is_an_unbiased_estimate(module):
    obs = torch.rand(1, 6)
    every = torch.tensor(list(itertools.product(range(3), range(4), range(2))))
    logp = logp_of(module, obs.expand(24, 6), every)
    many = obs.expand(20_000, 6)
    inputs = module.forward_exploration({Columns.OBS: many})[Columns.ACTION_DIST_INPUTS]
    estimates = module.get_train_action_dist_cls().from_logits(inputs).entropy()
    assert estimates.mean().item() == pytest.approx(-(logp.exp() * logp).sum().item(), abs=0.02)


def test_what_is_chosen_later_does_not_change_what_came_before(module):
    obs, actions = torch.rand(5, 6), torch.tensor([[0, 1, 1]]).repeat(5, 1)
    other = actions.clone()
    other[:, 1] = 3
    inputs = [
        module.forward_train({Columns.OBS: obs, Columns.ACTIONS: a})["action_dist_inputs"] for a in (actions, other)
    ]
    assert torch.equal(inputs[0][:, :7], inputs[1][:, :7])
    assert not torch.equal(inputs[0][:, 7:], inputs[1][:, 7:])


def test_numbers_too_know_those_before_them():
    module = sharpened(build("autoregressive", VECTOR, gym.spaces.Box(-1, 1, (2,))))
    obs = torch.rand(1, 6).expand(4000, 6)
    actions = module.forward_exploration({Columns.OBS: obs})[Columns.ACTIONS]
    assert abs(np.corrcoef(actions.detach().T)[0, 1]) > 0.1
    grid = torch.linspace(-15, 15, 401)
    points = torch.cartesian_prod(grid, grid)
    p = logp_of(module, obs[:1].expand(len(points), 6), points).exp().sum() * (grid[1] - grid[0]) ** 2
    assert p.item() == pytest.approx(1, abs=1e-2)
