"""Attention over direction tokens: against torch's own, its symmetries, its read-out, and worlds without tokens."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from torch.nn import functional

from marl_tune.modules import testing
from marl_tune.modules.parts.direction_attention import DirectionAttention, DirectionEncoder

torch.set_num_threads(1)  # networks this small are slower on several

VECTOR, DISCRETE = gym.spaces.Box(0.0, 1.0, (9,), np.float32), gym.spaces.Discrete(5)
IMAGE = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)
DIRECTIONS = testing.TOKENS["directions"]
NAMES = ["pheromone_attention", "ant_colony"]


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return DirectionAttention(query_dim=6, directions=DIRECTIONS, attention_dim=8, num_heads=2)


def test_output_is_that_of_torchs_attention(attention):
    features, levels = torch.randn(3, 6), torch.rand(3, 4)
    tokens = torch.tanh(attention.embed_level(levels[..., None]) + attention.embed_direction(torch.tensor(DIRECTIONS)))

    def heads(wide):  # (rows, tokens, width) -> (rows, heads, tokens, width of a head)
        return wide.view(3, -1, 2, 4).transpose(1, 2)

    expected = functional.scaled_dot_product_attention(
        heads(attention.query(features)[:, None]), heads(attention.key(tokens)), heads(attention.value(tokens))
    )
    expected = attention.output(expected.transpose(1, 2).reshape(3, 8))
    assert torch.allclose(attention(features, levels), expected, atol=1e-6)


def test_weights_are_a_distribution_over_the_directions_that_depends_on_levels_and_features(attention):
    features, levels = torch.randn(3, 6), torch.rand(3, 4)
    weights = attention.weights(features, levels)
    assert weights.shape == (3, 2, 4)
    assert torch.allclose(weights.sum(-1), torch.ones(3, 2))
    assert weights.max() < 1.0
    for changed in (attention.weights(features, levels.flip(-1)), attention.weights(features + 1.0, levels)):
        assert (changed - weights).abs().max() > 1e-3


def test_the_order_of_the_tokens_does_not_matter(attention):
    features, levels, order = torch.randn(3, 6), torch.rand(3, 4), [2, 0, 3, 1]
    weights, output = attention.weights(features, levels), attention(features, levels)
    attention.directions = attention.directions[order]
    assert torch.allclose(attention.weights(features, levels[:, order]), weights[..., order], atol=1e-6)
    assert torch.allclose(attention(features, levels[:, order]), output, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_weights_can_be_read_out(name):
    masked = gym.spaces.Dict({"observation": VECTOR, "action_mask": gym.spaces.MultiBinary(5)})
    for space in (VECTOR, masked):
        module = testing.build(name, space, DISCRETE)
        weights = module.attention_weights(testing.observations(module, (3,)))
        assert weights.shape == (3, 2, 4)
        assert not weights.requires_grad
        assert torch.allclose(weights.sum(-1), torch.ones(3, 2))


def test_tokens_enter_by_the_attention_only():
    module = testing.build("pheromone_attention", VECTOR, DISCRETE)
    obs = testing.observations(module, (3,))
    other = obs.clone()
    other[:, testing.TOKENS["indices"]] = torch.rand(3, 4)
    assert not torch.allclose(module.encoder(obs), module.encoder(other))
    for parameter in module.encoder.attention.output.parameters():
        parameter.data.zero_()
    assert torch.equal(module.encoder(obs), module.encoder(other))


def test_the_world_says_which_entries_are_tokens():
    tokens = {"indices": [8, 0], "directions": [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]}
    module = testing.build("pheromone_attention", VECTOR, DISCRETE, tokens=tokens)
    obs = testing.observations(module, (3,))
    features, levels = module.encoder.query_and_levels(obs)
    assert torch.equal(levels, obs[:, [8, 0]])
    assert torch.allclose(features, module.encoder.dense(obs[:, 1:8]), atol=1e-6)
    assert module.attention_weights(obs).shape == (3, 2, 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_world_without_tokens_is_refused(name):
    with pytest.raises(ValueError, match=f"module={name} needs observations with direction tokens .* have none"):
        testing.build(name, VECTOR, DISCRETE, tokens=None)


@pytest.mark.parametrize(
    ("space", "tokens", "message"),
    [
        (IMAGE, testing.TOKENS, "direction tokens need observations with one axis"),
        (VECTOR, {"indices": [3, 9], "directions": DIRECTIONS[:2]}, r"different indices below 9.*got \[3, 9\]"),
        (VECTOR, {"indices": [3, -1], "directions": DIRECTIONS[:2]}, r"different indices below 9.*got \[3, -1\]"),
        (VECTOR, {"indices": [3, 3], "directions": DIRECTIONS[:2]}, r"different indices below 9.*got \[3, 3\]"),
        (VECTOR, {"indices": [3], "directions": DIRECTIONS[:2]}, "need 2 different indices"),
        (gym.spaces.Box(0, 1, (4,)), {"indices": [0, 1, 2, 3], "directions": DIRECTIONS}, "other entries beside"),
    ],
)
def test_tokens_that_do_not_fit_the_observation_are_refused(space, tokens, message):
    with pytest.raises(ValueError, match=message):
        testing.build("pheromone_attention", space, DISCRETE, tokens=tokens)


def test_it_learns_to_follow_the_strongest_trail_or_to_flee_it():
    """Whether to take the highest or the lowest level is told by another entry; the weights move to that direction."""
    torch.manual_seed(0)
    encoder = DirectionEncoder(VECTOR, [3, 4, 5, 6], DIRECTIONS, [64, 64], "tanh", 32, 4)
    head = torch.nn.Linear(64, 4)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(150):
        obs = torch.rand(128, 9)
        obs[:, 2] = torch.randint(0, 2, (128,))
        levels = obs[:, 3:7]
        target = torch.where(obs[:, 2] > 0, levels.argmax(-1), levels.argmin(-1))
        logits = head(encoder(obs))
        optimizer.zero_grad()
        functional.cross_entropy(logits, target).backward()
        optimizer.step()
    assert (logits.argmax(-1) == target).float().mean() > 0.8
    looked_at = encoder.attention_weights(obs).gather(2, target.view(-1, 1, 1).expand(-1, 4, 1)).mean(0)  # (heads, 1)
    assert (looked_at - 0.25).abs().max() > 0.15  # a head seeks the direction to go to, or avoids it


def test_logits_differ_between_directions_of_pheromone():
    """Two ants that differ in nothing but where the pheromone is."""
    module = testing.build("pheromone_attention", VECTOR, DISCRETE)
    obs = torch.full((2, 9), 0.5)
    obs[0, 3] = obs[1, 4] = 1.0
    logits = module.forward_exploration({Columns.OBS: obs})[Columns.ACTION_DIST_INPUTS]
    assert not torch.allclose(logits[0], logits[1])
