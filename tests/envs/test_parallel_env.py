"""The PettingZoo adapter: PettingZoo's own tests, and what those do not look at."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from pettingzoo import ParallelEnv
from pettingzoo.test import parallel_api_test, parallel_seed_test

from marl_tune import envs
from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.ant_colony import AntColony, parallel_env
from marl_tune.envs.parallel_env import WorldParallelEnv
from marl_tune.envs.world import Step, World

BY_TURNS = ("classic/connect_four", "classic/tictactoe")  # PettingZoo's own worlds serve outside of this framework


@pytest.mark.parametrize("name", [name for name in envs.ENVS if name not in BY_TURNS])
def test_pettingzoo_accepts_every_world(name):
    def make():
        return WorldParallelEnv(envs.make_world(envs.default_config(name)), name)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the API test only warns of some faults
        parallel_api_test(make(), num_cycles=300)
        parallel_seed_test(make, num_cycles=50)


def small(**settings):
    rules = {"grid_size": [6, 8], "n_agents": 3, "n_food_sources": 2, "food_per_source": 1, "sense_radius": None}
    return parallel_env(**(rules | {"pheromone_strength": 0.2, "pheromone_decay": 0.9, "max_steps": 20} | settings))


def test_same_seed_same_episode_to_its_end():
    # PettingZoo's seed test stops after one step: it asks any() of a dict, which looks at the keys.
    first, second = small(), small()
    rng = np.random.default_rng(0)
    for seed in (0, 5):
        observed = [env.reset(seed=seed)[0] for env in (first, second)]
        while first.agents:
            for agent in first.agents:
                assert np.array_equal(observed[0][agent], observed[1][agent])
            actions = {agent: int(rng.integers(5)) for agent in first.agents}
            results = [env.step(actions) for env in (first, second)]
            assert results[0][1:] == results[1][1:]
            observed = [result[0] for result in results]
        assert not second.agents


def test_adapter_hands_each_agent_its_own_row():
    env, world = small(), AntColony(small().world.config)
    observations, infos = env.reset(seed=3)
    expected = world.reset([3])["ants"][0]
    assert list(observations) == list(infos) == ["ant_0", "ant_1", "ant_2"]
    for step in range(20):
        for index, agent in enumerate(env.agents):
            assert np.array_equal(observations[agent], expected[index])
            assert env.observation_space(agent).contains(observations[agent])
        actions = [(step + index) % 5 for index in range(3)]
        observations, rewards, terminated, truncated, infos = env.step(dict(zip(env.agents, actions, strict=True)))
        result = world.step({"ants": np.array([actions])})
        expected = result.observations["ants"][0]
        assert list(rewards.values()) == result.rewards["ants"][0].tolist()
        assert set(terminated.values()) == {bool(result.terminated[0])}
        assert set(truncated.values()) == {bool(result.truncated[0])}
    assert truncated["ant_0"]
    assert not env.agents
    assert infos["ant_1"]["ant_efficiency"] == world.episode_metrics(np.array([0]))["ant_efficiency"][0]
    assert env.render().dtype == np.uint8


def test_only_the_live_agents_may_act():
    env = small(max_steps=1)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="live agents"):
        env.step({"ant_0": 0})
    env.step(dict.fromkeys(env.agents, 0))
    assert env.agents == []
    assert env.step({}) == ({}, {}, {}, {}, {})
    with pytest.raises(ValueError, match="live agents"):
        env.step({"ant_0": 0, "ant_1": 0, "ant_2": 0})


def test_agents_sample_apart():
    env = small()
    assert isinstance(env, ParallelEnv)
    samples = []
    for index, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(index)
    for agent in env.possible_agents:
        samples.append([env.action_space(agent).sample() for _ in range(20)])
    assert samples[0] != samples[1] != samples[2]


def test_one_copy_and_known_settings_only():
    with pytest.raises(ValueError, match="num_envs=2"):
        WorldParallelEnv(AntColony(small().world.config, 2), "ant_colony")
    with pytest.raises(ValueError, match=r"env\.gird_size is not a setting"):
        parallel_env(gird_size=[5, 5])


class TwoGroups(World):
    """A leader with a masked action and two followers with a vector: shapes that the ant colony does not have."""

    def __init__(self, config=None, num_envs=1):
        masked = gym.spaces.Dict({"observation": gym.spaces.Box(0, 9, (2,)), "action_mask": gym.spaces.MultiBinary(3)})
        self.num_envs = num_envs
        self.groups = (
            AgentGroup("leader", ("boss",), masked, gym.spaces.Discrete(3)),
            AgentGroup("followers", ("a", "b"), gym.spaces.Box(0, 9, (2,)), gym.spaces.Box(-1, 1, (2,))),
        )

    def reset(self, seeds=None, copies=None):
        mask = np.array([[[0, 1, 0]]], np.int8)
        leader = {"observation": np.full((1, 1, 2), 5, np.float32), "action_mask": mask}
        return {"leader": leader, "followers": np.arange(4, dtype=np.float32).reshape(1, 2, 2)}

    def step(self, actions):
        self.actions = actions
        rewards = {"leader": np.ones((1, 1), np.float32), "followers": np.array([[2, 3]], np.float32)}
        return Step(self.reset(), rewards, np.array([True]), np.array([False]))

    def episode_metrics(self, copies):
        return {}

    def render(self, copy=0):
        return np.zeros((2, 2, 3), np.uint8)

    def get_state(self):
        return {}

    def set_state(self, state):
        pass


def test_groups_and_dict_observations():
    world = TwoGroups()
    env = WorldParallelEnv(world, "two_groups")
    observations, _ = env.reset()
    assert list(observations) == ["boss", "a", "b"]
    assert observations["boss"]["action_mask"].tolist() == [0, 1, 0]
    assert observations["b"].tolist() == [2, 3]
    _, rewards, terminated, _, _ = env.step({"b": np.array([0.1, 0.2]), "boss": 1, "a": np.array([0.3, 0.4])})
    assert world.actions["leader"].tolist() == [[1]]
    assert np.allclose(world.actions["followers"], [[[0.3, 0.4], [0.1, 0.2]]])
    assert rewards == {"boss": 1.0, "a": 2.0, "b": 3.0}
    assert all(terminated.values())
