"""Modules with a memory: LSTM and GRU against torch's own, states handed on, and something to remember."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from marl_tune import modules
from marl_tune.modules import testing
from marl_tune.modules.parts.recurrent import RecurrentMemory

torch.set_num_threads(1)  # networks this small are slower on several

VECTOR, DISCRETE = gym.spaces.Box(-1.0, 1.0, (9,), np.float32), gym.spaces.Discrete(5)
STATEFUL = ["lstm", "gru", "plasticity", "ant_colony"]


def test_these_are_all_the_modules_with_a_memory():
    assert {n for n in modules.MODULES if testing.build(n, VECTOR, DISCRETE).is_stateful()} == set(STATEFUL)


@pytest.mark.parametrize(("network", "names"), [(torch.nn.LSTM, ["h", "c"]), (torch.nn.GRU, ["h"])])
def test_recurrent_memory_is_the_network_of_torch_with_states_batch_first(network, names):
    torch.manual_seed(0)
    memory = RecurrentMemory(network, 4, 6, num_layers=2)
    features, states = torch.randn(3, 5, 4), {name: torch.randn(3, 2, 6) for name in names}
    outputs, last = memory(features, states)
    layers_first = tuple(states[name].permute(1, 0, 2).contiguous() for name in names)
    expected, expected_last = memory.network(features, layers_first if len(names) == 2 else layers_first[0])
    assert torch.equal(outputs, expected)
    assert list(last) == names
    parts = expected_last if len(names) == 2 else (expected_last,)
    for name, part in zip(names, parts, strict=True):
        assert torch.equal(last[name], part.permute(1, 0, 2))
    assert {name: part.shape for name, part in memory.initial_state().items()} == dict.fromkeys(names, (2, 6))


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_sequence_cut_anywhere_gives_the_same(name, cut):
    module = testing.build(name, VECTOR, DISCRETE)
    batch = testing.batch_of(module)
    whole = module.forward_train(batch)
    first = module.forward_exploration(batch | {Columns.OBS: batch[Columns.OBS][:, :cut]})
    rest = {Columns.OBS: batch[Columns.OBS][:, cut:], Columns.STATE_IN: first[Columns.STATE_OUT]}
    second = module.forward_inference(rest)
    key = Columns.ACTION_DIST_INPUTS
    assert testing.same(torch.cat([first[key], second[key]], 1), whole[key])
    assert testing.same(second[Columns.STATE_OUT], whole[Columns.STATE_OUT])


@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_can_be_set_back_for_one_agent(name):
    """The rollouts write the initial state over the rows whose episode began."""
    module = testing.build(name, VECTOR, DISCRETE)
    batch = testing.batch_of(module)
    with torch.inference_mode():
        state = module.forward_exploration(batch)[Columns.STATE_OUT]
        before = {key: part.clone() for key, part in state.items()}
        for key, part in state.items():
            part[1] = module.get_initial_state()[key]
    for key, part in state.items():
        assert torch.equal(part[0], before[key][0])
        assert torch.equal(part[2], before[key][2])
        assert before[key][1].any()
        assert not part[1].any()


def recall_accuracy(name, steps=4, updates=150):
    """How often a trained module tells at the last step which of two entries was 1 in the first step only."""
    module = testing.build(name, VECTOR, DISCRETE, hidden_dims=[16], state_dim=16, num_layers=1, plastic_dim=16)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(updates):
        seen = torch.randint(0, 2, (32,))
        obs = torch.zeros(32, steps, 9)
        obs[..., 8] = 1.0
        obs[torch.arange(32), 0, seen] = 1.0
        state = {key: part.expand(32, *part.shape) for key, part in module.get_initial_state().items()}
        batch = {Columns.OBS: obs, Columns.STATE_IN: state}
        logits = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS][:, -1]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, seen).backward()
        optimizer.step()
    return (logits.argmax(-1) == seen).float().mean().item()


@pytest.mark.parametrize("name", STATEFUL)
def test_a_memory_learns_to_remember(name):
    assert recall_accuracy(name) == 1.0


def test_without_a_memory_there_is_nothing_to_remember():
    assert recall_accuracy("mlp") < 0.9
