"""The plastic layer against its formula, the trace's rules, and what gradients flow through."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from marl_tune.modules import testing
from marl_tune.modules.parts.plastic_layer import PlasticLayer, next_trace

torch.set_num_threads(1)  # networks this small are slower on several

VECTOR, DISCRETE = gym.spaces.Box(-1.0, 1.0, (9,), np.float32), gym.spaces.Discrete(5)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return PlasticLayer(in_dim=6, plastic_dim=4, rule="oja", trace_rate=0.1)


def random_trace(rows, size):
    return torch.randn(rows, size, size, generator=torch.Generator().manual_seed(1))


def test_one_step_is_the_formula(layer):
    """y = tanh((W + alpha * H) x + b), element by element."""
    features, trace = torch.randn(2, 1, 6), random_trace(2, 4)
    outputs, state = layer(features, {"trace": trace})
    x = torch.tanh(layer.project(features))[:, 0]
    for b in range(2):
        for i in range(4):
            total = layer.fixed.bias[i]
            for j in range(4):
                total = total + (layer.fixed.weight[i, j] + layer.alpha[i, j] * trace[b, i, j]) * x[b, j]
            assert outputs[b, 0, 6 + i].item() == pytest.approx(torch.tanh(total).item(), abs=1e-6)
    assert torch.equal(outputs[..., :6], features)
    assert torch.allclose(state["trace"], next_trace(trace, x, outputs[:, 0, 6:], layer.trace_rate, "oja"))


@pytest.mark.parametrize("rule", ["oja", "decay"])
def test_trace_rules_are_the_published_ones(rule):
    trace, x, y, eta = random_trace(2, 3), torch.randn(2, 3), torch.randn(2, 3), torch.tensor(0.3)
    result = next_trace(trace, x, y, eta, rule)
    for b in range(2):
        for i in range(3):
            for j in range(3):
                h = trace[b, i, j]
                if rule == "oja":
                    expected = h + eta * y[b, i] * (x[b, j] - y[b, i] * h)
                else:
                    expected = (1 - eta) * h + eta * y[b, i] * x[b, j]
                assert result[b, i, j].item() == pytest.approx(expected.item(), abs=1e-6)


def test_rate_starts_as_configured_and_stays_between_0_and_1(layer):
    assert layer.trace_rate.item() == pytest.approx(0.1)
    for logit in (-20.0, 15.0):
        layer.rate_logit.data.fill_(logit)
        assert 0.0 < layer.trace_rate.item() < 1.0


@pytest.mark.parametrize("rule", ["oja", "decay"])
def test_trace_stays_finite_over_a_long_life(rule):
    torch.manual_seed(0)
    layer = PlasticLayer(in_dim=6, plastic_dim=4, rule=rule, trace_rate=0.9)
    layer.alpha.data.mul_(100.0)
    state = {"trace": torch.zeros(8, 4, 4)}
    with torch.no_grad():
        for _ in range(20):
            _, state = layer(3.0 * torch.randn(8, 100, 6), state)
    assert state["trace"].abs().max() < 10.0


def test_gradient_flows_through_time_into_the_rule(layer):
    """The trace before the first step is 0, so what the rule learns from is a later step."""
    start = {"trace": torch.zeros(2, 4, 4)}
    learnt = (layer.alpha, layer.rate_logit)
    for steps, reached in ((1, False), (2, True)):
        layer.zero_grad()
        layer(torch.randn(2, steps, 6), start)[0].sum().backward()
        assert [p.grad is not None and bool(p.grad.any()) for p in learnt] == [reached, reached]


def test_an_early_observation_changes_later_outputs_by_the_trace_only(layer):
    features = torch.randn(1, 3, 6)
    other = features.clone()
    other[:, 0] += 1.0
    start = {"trace": torch.zeros(1, 4, 4)}
    assert not torch.allclose(layer(features, start)[0][:, 1:], layer(other, start)[0][:, 1:], atol=1e-7)
    layer.alpha.data.zero_()
    assert torch.allclose(layer(features, start)[0][:, 1:], layer(other, start)[0][:, 1:])


def test_each_agent_has_its_own_trace_from_zero_on():
    module = testing.build("plasticity", VECTOR, DISCRETE)
    initial = module.get_initial_state()
    assert set(initial) == {"trace"}
    assert initial["trace"].shape == (8, 8)
    obs = testing.observations(module, (2, 1))
    batch = {Columns.OBS: obs, Columns.STATE_IN: {"trace": torch.zeros(2, 8, 8)}}
    trace = module.forward_exploration(batch)[Columns.STATE_OUT]["trace"]
    assert trace.any()
    assert not torch.allclose(trace[0], trace[1])


def test_the_trace_is_state_and_no_weight():
    module = testing.build("plasticity", VECTOR, DISCRETE)
    before = {name: part.clone() for name, part in module.state_dict().items()}
    batch = testing.batch_of(module)
    for forward in (module.forward_exploration, module.forward_inference, module.forward_train):
        forward(batch)
    assert all(torch.equal(part, before[name]) for name, part in module.state_dict().items())
    assert not any("trace" in name for name in before)
