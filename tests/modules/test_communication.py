"""Messages: what is said, who hears it, what it is learned from; alone, and in teams from sampling to the loss."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from torch.nn import functional

from marl_tune import envs
from marl_tune.envs.signal.switchboard import Switchboard
from marl_tune.modules import testing
from marl_tune.modules.communication import MESSAGE_NOISE
from marl_tune.modules.parts.message_attention import MessageAttention
from marl_tune.modules.parts.messages import Speaker, gumbel_noise

torch.set_num_threads(1)  # networks this small are slower on several

VECTOR, DISCRETE = gym.spaces.Box(0.0, 1.0, (9,), np.float32), gym.spaces.Discrete(5)
INPUTS = Columns.ACTION_DIST_INPUTS


def build(**changes):
    return testing.build("communication", VECTOR, DISCRETE, **changes)


def logits(module, obs):
    """By inference: (B, N, 5)."""
    return module.forward_inference({Columns.OBS: obs})[INPUTS]


# What is said.


@pytest.mark.parametrize("separate", [True, False])
def test_discrete_messages_keep_the_contract(separate):
    for check in testing.CHECKS:
        check(build(separate_critic=separate, message_type="discrete"))


def test_continuous_messages_are_bounded():
    torch.manual_seed(0)
    said = Speaker(6, 2, 3, discrete=False)(100 * torch.randn(50, 6), None, 1.0)
    assert said.shape == (50, 6)
    assert said.abs().max() == 1.0


def test_discrete_messages_are_one_symbol_a_channel():
    torch.manual_seed(0)
    speaker, features = Speaker(6, 2, 3, discrete=True), torch.randn(50, 6)
    for noise in (None, gumbel_noise((50, 6), torch.device("cpu"))):
        said = speaker(features, noise, 0.5).unflatten(-1, (2, 3))
        assert set(said.detach().unique().tolist()) == {0.0, 1.0}
        assert (said.sum(-1) == 1).all()
    likely = speaker(features, None, 1.0).unflatten(-1, (2, 3)).argmax(-1)
    assert torch.equal(likely, speaker.say(features).unflatten(-1, (2, 3)).argmax(-1))


def test_symbols_are_drawn_with_the_softmax_of_their_scores():
    torch.manual_seed(0)
    speaker, features = Speaker(6, 1, 3, discrete=True), torch.randn(1, 6)
    noise = gumbel_noise((20000, 3), torch.device("cpu"))
    drawn = speaker(features.expand(20000, 6), noise, 1.0).mean(0)
    assert torch.allclose(drawn, torch.softmax(speaker.say(features)[0], -1), atol=0.01)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_gradient_of_a_symbol_is_that_of_the_soft_choice(temperature):
    torch.manual_seed(0)
    speaker, features = Speaker(6, 2, 3, discrete=True), torch.randn(4, 6)
    noise, weight = gumbel_noise((4, 6), torch.device("cpu")), torch.randn(6)
    hard = speaker(features, noise, temperature) @ weight
    scores = (speaker.say(features) + noise).unflatten(-1, (2, 3))
    soft = torch.softmax(scores / temperature, -1).flatten(-2) @ weight
    for parameter in speaker.parameters():
        one, other = (torch.autograd.grad(s.sum(), parameter, retain_graph=True)[0] for s in (hard, soft))
        assert torch.allclose(one, other, atol=1e-6)


def test_exploration_draws_and_inference_does_not():
    module = build(message_type="discrete")
    batch = testing.batch_of(module)
    drawn = [module.forward_exploration(batch) for _ in range(2)]
    assert not testing.same(drawn[0][MESSAGE_NOISE], drawn[1][MESSAGE_NOISE])
    assert not testing.same(drawn[0][INPUTS], drawn[1][INPUTS])
    assert testing.same(logits(module, batch[Columns.OBS]), logits(module, batch[Columns.OBS]), 0.0)
    assert MESSAGE_NOISE not in build().forward_exploration(batch)


# Who hears it.


def test_what_is_read_is_torchs_attention_over_the_others():
    torch.manual_seed(0)
    attention = MessageAttention(query_dim=6, message_dim=4, attention_dim=8, num_heads=2)
    features, messages, others = torch.randn(3, 5, 6), torch.randn(3, 5, 4), ~torch.eye(5, dtype=torch.bool)

    def heads(wide):  # (rows, agents, width) -> (rows, heads, agents, width of a head)
        return wide.unflatten(-1, (2, 4)).transpose(1, 2)

    q, k, v = (heads(part) for part in (attention.query(features), *attention.key_and_value(messages).chunk(2, -1)))
    read = functional.scaled_dot_product_attention(q, k, v, attn_mask=others)
    assert torch.allclose(attention(features, messages, others), read.transpose(1, 2).flatten(-2), atol=1e-6)
    weights = attention.weights(features, messages, others)
    assert torch.allclose((weights @ v).transpose(1, 2).flatten(-2), attention(features, messages, others), atol=1e-6)
    assert torch.allclose(weights.sum(-1), torch.ones(3, 2, 5))
    assert not weights.diagonal(dim1=-2, dim2=-1).any(), "nobody hears itself"


def test_who_hears_nobody_reads_zeros():
    attention = MessageAttention(query_dim=6, message_dim=4, attention_dim=8, num_heads=2)
    hears = torch.tensor([[False, True], [False, False]])
    features, messages = torch.randn(3, 2, 6), torch.randn(3, 2, 4)
    read = attention(features, messages, hears)
    assert read[:, 0].all()
    assert not read[:, 1].any()
    assert not attention.weights(features, messages, hears)[:, :, 1].any()
    read.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in attention.parameters())


def test_a_cut_channel_tells_nothing_and_costs_no_weights():
    """`comm_cut` and no channels at all act alike; neither is what the channel does."""
    obs, other = testing.observations(build(), (3, 4), 1), testing.observations(build(), (3, 4), 2)
    mixed = torch.cat([obs[:, :1], other[:, 1:]], 1)  # the first agent sees the same, the others do not
    talking, cut, none = build(), build(comm_cut=True), build(comm_channels=0)
    assert not testing.same(logits(talking, obs)[:, 0], logits(talking, mixed)[:, 0])
    for module in (cut, none):
        assert testing.same(logits(module, obs)[:, 0], logits(module, mixed)[:, 0], 0.0)
        assert module.compute_values({Columns.OBS: obs})[:, 0].equal(module.compute_values({Columns.OBS: mixed})[:, 0])
    assert not testing.same(logits(talking, obs), logits(cut, obs))
    assert set(cut.state_dict()) == set(talking.state_dict())
    assert not [name for name in none.state_dict() if "speaker" in name or "attention" in name]
    none.load_state_dict({name: value for name, value in talking.state_dict().items() if name in none.state_dict()})
    cut.load_state_dict(talking.state_dict())
    assert testing.same(logits(cut, obs), logits(none, obs), 0.0)
    with pytest.raises(ValueError, match="the channel is cut"):
        cut.attention_weights(obs)


def test_live_settings_change_a_module_in_place():
    module, obs = build(), testing.observations(build(), (3, 4), 1)
    before = logits(module, obs)
    module.apply_live_settings(module.model_config | {"comm_cut": True, "hidden_dims": [1]})
    assert testing.same(logits(module, obs), logits(build(comm_cut=True), obs), 0.0)
    assert module.model_config["hidden_dims"] == testing.SMALL["hidden_dims"]
    module.apply_live_settings(module.model_config | {"comm_cut": False})
    assert testing.same(logits(module, obs), before, 0.0)


def test_only_agents_within_range_hear_each_other():
    """Four agents on a line at 0, 0.2, 0.4 and 0.9; entries 7 and 8 are the position."""
    module = build(comm_range=0.25, positions=[7, 8], comm_rounds=1)
    obs = testing.observations(module, (2, 4))
    obs[..., 7:] = torch.tensor([[0.0, 0.5], [0.2, 0.5], [0.4, 0.5], [0.9, 0.5]])
    hears = module.attention_weights(obs).sum((0, 2)) > 0  # (2, 4, 4) over rounds and heads
    line = torch.tensor([[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    assert torch.equal(hears, line.expand(2, 4, 4))
    before = logits(module, obs)
    for speaker in range(4):
        changed = obs.clone()
        changed[:, speaker, :7] = torch.rand(2, 7)
        moved = (logits(module, changed) != before).any(-1)
        assert torch.equal(moved, (line[:, speaker] | (torch.arange(4) == speaker)).expand(2, 4))
    testing.check_save_and_load(module)


def test_two_rounds_reach_farther_than_one():
    """On a line of three, the last hears of the first in the second round."""
    obs = testing.observations(build(), (1, 3))
    obs[..., 0], obs[..., 1] = torch.tensor([0.0, 0.5, 1.0]), 0.0
    changed = obs.clone()
    changed[:, 0, 2:] += 0.5
    for rounds, reaches in ((1, False), (2, True)):
        module = build(comm_rounds=rounds, comm_range=0.6, team_size=3)
        assert (logits(module, obs) != logits(module, changed))[0, 2].any() == reaches


def test_a_range_without_positions_is_refused():
    with pytest.raises(ValueError, match=r"module\.comm_range must be null where observations have no positions"):
        build(comm_range=0.5, positions=None)


def test_masks_of_actions_are_no_part_of_what_is_said():
    space = gym.spaces.Dict({"observation": VECTOR, "action_mask": gym.spaces.MultiBinary(5)})
    module = testing.build("communication", space, DISCRETE)
    obs = testing.observations(module, (3, 4))
    free = obs | {"action_mask": torch.ones_like(obs["action_mask"])}
    allowed = obs["action_mask"].bool()
    assert torch.equal(logits(module, obs)[allowed], logits(module, free)[allowed])
    assert not torch.equal(logits(module, obs), logits(module, free))


# What is learned.


def naming_accuracy(updates=100, **changes):
    """How often agents name what their partner sees, after so many steps on the loss of naming it; chance is 1/3."""
    world = envs.make_world(envs.default_config("signal", n_agents=3, n_symbols=3), 64)
    space, actions = world.groups[0].observation_space, world.groups[0].action_space
    module = testing.build("communication", space, actions, hidden_dims=[32], comm_rounds=1, team_size=3, **changes)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    script = Switchboard(world)
    world.reset(list(range(64)))
    for _ in range(updates):
        seen = world.reset()
        right = torch.from_numpy(script.act(seen)["agents"])
        batch = {Columns.OBS: torch.from_numpy(seen["agents"])}
        drawn = {name: module.forward_exploration(batch)[name] for name in module.drawn_columns}
        scores = module.forward_train(batch | drawn)[INPUTS]
        optimizer.zero_grad()
        functional.cross_entropy(scores.flatten(0, 1), right.flatten()).backward()
        optimizer.step()
    return (module.forward_inference(batch)[INPUTS].argmax(-1) == right).float().mean().item()


@pytest.mark.parametrize(("message_type", "message_dim"), [("continuous", 8), ("discrete", 3)])
def test_agents_learn_what_to_say_and_whom_to_listen_to(message_type, message_dim):
    assert naming_accuracy(message_type=message_type, message_dim=message_dim, attention_dim=16) > 0.85


def test_without_a_channel_there_is_nothing_to_learn():
    assert naming_accuracy(comm_cut=True) < 0.5
