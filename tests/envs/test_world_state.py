"""The state of the world, for critics that see all of it."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from marl_tune import envs
from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.joint_observation import joint_observation, joint_space
from marl_tune.envs.testing import check_world, sample_actions


def played(world, steps, seed=3):
    rng = np.random.default_rng(seed)
    observations = world.reset([seed + copy for copy in range(world.num_envs)])
    for _ in range(steps):
        observations = world.step(sample_actions(world, observations, rng)).observations
    return observations


def test_the_joint_observation_is_that_of_all_agents_in_the_order_of_the_groups():
    two = gym.spaces.Discrete(2)
    masked = gym.spaces.Dict({"observation": gym.spaces.Box(-1, 1, (2, 2)), "action_mask": gym.spaces.MultiBinary(2)})
    groups = (
        AgentGroup("cats", ("c0", "c1"), gym.spaces.Box(0, 255, (3,), np.uint8), two),
        AgentGroup("dogs", ("d0",), masked, two),
    )
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
    board = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 1, 2, 2)
    seen = {"cats": pixels, "dogs": {"observation": board, "action_mask": np.ones((2, 1, 2), np.int8)}}
    joint, space = joint_observation(groups, seen), joint_space(groups)
    assert joint.dtype == space.dtype == np.float32
    assert np.array_equal(joint, np.concatenate([pixels.reshape(2, 6), board.reshape(2, 4)], axis=1)), "nothing scaled"
    assert np.array_equal(space.low, [0] * 6 + [-1] * 4)
    assert np.array_equal(space.high, [255] * 6 + [1] * 4)
    only_pixels = joint_observation(groups[:1], seen)
    assert only_pixels.dtype == joint_space(groups[:1]).dtype == np.uint8
    pixels[...] = 0
    assert only_pixels.any(), "it is the caller's to keep"


def test_images_of_one_size_are_joined_as_one_image_of_all_their_channels():
    one = gym.spaces.Discrete(2)
    masked = gym.spaces.Dict(
        {"observation": gym.spaces.Box(-1, 1, (4, 5, 2)), "action_mask": gym.spaces.MultiBinary(2)}
    )
    groups = (
        AgentGroup("cats", ("c0", "c1"), gym.spaces.Box(0, 255, (4, 5, 3), np.uint8), one),
        AgentGroup("dogs", ("d0",), masked, one),
    )
    pixels = np.random.default_rng(0).integers(0, 256, (6, 2, 4, 5, 3), np.uint8)
    board = np.linspace(-1, 1, 240, dtype=np.float32).reshape(6, 1, 4, 5, 2)
    seen = {"cats": pixels, "dogs": {"observation": board, "action_mask": np.ones((6, 1, 2), np.int8)}}
    joint, space = joint_observation(groups, seen), joint_space(groups)
    assert np.array_equal(joint, np.concatenate([pixels[:, 0], pixels[:, 1], board[:, 0]], axis=-1))
    assert space.shape == (4, 5, 8)
    assert np.array_equal(space.high[2, 3], [255] * 6 + [1] * 2)
    assert joint_observation(groups[:1], seen).dtype == joint_space(groups[:1]).dtype == np.uint8
    as_tensors = {"cats": torch.from_numpy(pixels)}
    assert np.array_equal(joint_observation(groups[:1], as_tensors).numpy(), joint[..., :6])


def test_pricing_tells_each_stores_inventory_d_and_price():
    world = envs.make_world(envs.default_config("pricing"), 3)
    (seen,) = played(world, 5).values()
    state = world.state({})
    count = seen.shape[1]
    assert np.array_equal(state, np.concatenate([seen[..., i] for i in range(3)], axis=1))
    assert state.shape == (3, 3 * count)


def test_pursuit_tells_where_all_are():
    world = envs.make_world(envs.default_config("sisl/pursuit"), 2)
    (seen,) = played(world, 20).values()
    config, state = world.config, world.state({})
    places = state[:, : 2 * config.n_pursuers].reshape(2, config.n_pursuers, 2)
    assert len(np.unique(places.reshape(-1, 2), axis=0)) > config.n_pursuers
    evaders = state[:, 2 * config.n_pursuers :].reshape(2, config.y_size, config.x_size)
    assert np.array_equal(evaders.sum(axis=(1, 2)), world.free.sum(axis=1))
    x, y = np.rint(places * (config.x_size - 1, config.y_size - 1)).astype(int).transpose(2, 0, 1)
    reach = config.obs_range // 2
    for copy in range(2):
        for agent in range(config.n_pursuers):
            here = seen[copy, agent, reach, reach, 2]  # evaders on the pursuer's own cell
            assert evaders[copy, y[copy, agent], x[copy, agent]] == here


@pytest.mark.parametrize(
    ("world_id", "kwargs", "own"),
    [
        ("mpe/simple_spread_v3", {}, True),
        ("sisl/multiwalker_v9", {}, True),
        ("butterfly/knights_archers_zombies_v10", {}, True),
        ("butterfly/cooperative_pong_v5", {}, False),  # a picture of the screen
        ("classic/tictactoe_v3", {}, False),
    ],
)
def test_worlds_of_pettingzoo_give_their_own_state_unless_it_is_a_picture(world_id, kwargs, own):
    config = envs.default_config("pettingzoo", id=world_id, kwargs=kwargs)
    with envs.make_world(config, 2) as world:
        observations = world.reset([1, 2])
        state = world.state(observations)
        assert (world.own_state_space is not None) == own
        assert state.shape == (2, *world.state_space.shape)
        assert state.dtype == world.state_space.dtype
        assert np.isfinite(state).all()
        if own:
            assert np.array_equal(state[1], np.float32(world.teams[1].env.state()))


def test_worlds_in_worker_processes_give_the_same_states():
    config = envs.default_config("pettingzoo", id="mpe/simple_spread_v3", workers=2)
    with envs.make_world(config, 3) as apart, envs.make_world(config, 1) as alone:
        assert apart.state_space == alone.state_space
        state = apart.state(played(apart, 4))
        assert state.shape == (3, 54)
        alone.reset([3])
        assert not np.array_equal(state[0], alone.state({})[0])
    check_world(lambda copies: envs.make_world(short(config), copies), steps=20)


def short(config):
    from dataclasses import replace

    return replace(config, kwargs={"max_cycles": 8})
