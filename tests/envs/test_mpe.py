"""The particle worlds: equal to PettingZoo's step by step; their metrics, settings, pictures and speed."""

import importlib.util
import re
import sys
import time
import warnings
from unittest.mock import MagicMock

import numpy as np
import pytest

from marl_tune import envs
from marl_tune.__main__ import main
from marl_tune.envs.testing import check_world, sample_actions

WORLDS = [name for name in envs.ENVS if name.startswith("mpe/")]
SEEDS = (0, 7, 123_456)  # one a copy
EPISODES = 3
PETTINGZOO_NAMES = {
    "mpe/simple_spread": {"n_agents": "N"},
    "mpe/simple_adversary": {"num_good": "N"},
    "mpe/simple_tag": {},
}  # of settings that are called otherwise there
SETTINGS = [
    ("mpe/simple_spread", {}),
    ("mpe/simple_spread", {"n_agents": 1, "max_cycles": 3}),
    ("mpe/simple_spread", {"n_agents": 2, "local_ratio": 1.0, "max_cycles": 60}),
    ("mpe/simple_spread", {"n_agents": 12, "local_ratio": 0.1, "max_cycles": 8}),
    ("mpe/simple_adversary", {}),
    ("mpe/simple_adversary", {"num_good": 1, "max_cycles": 1}),
    ("mpe/simple_adversary", {"num_good": 5, "max_cycles": 40}),
    ("mpe/simple_tag", {}),
    ("mpe/simple_tag", {"num_good": 3, "num_adversaries": 4, "num_obstacles": 3, "max_cycles": 20}),
    ("mpe/simple_tag", {"num_good": 2, "num_adversaries": 1, "num_obstacles": 0, "max_cycles": 30}),
]


def make(name, num_envs=1, **settings):
    return envs.make_world(envs.default_config(name, **settings), num_envs)


@pytest.fixture(scope="module")
def pettingzoo_env():
    """PettingZoo's environment of a stem and our settings. It imports pygame, but only to draw: where that is not
    installed an empty stand-in does."""
    has_pygame = importlib.util.find_spec("pygame") is not None

    def make_env(name, **settings):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # these worlds move to a package of their own
            module = importlib.import_module(f"pettingzoo.{name.replace('/', '.')}_v3")
        renamed = {PETTINGZOO_NAMES[name].get(key, key): value for key, value in settings.items()}
        return module.parallel_env(**renamed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDL_VIDEODRIVER", "dummy")
        patch.setenv("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        if not has_pygame:
            patch.setitem(sys.modules, "pygame", MagicMock())
        make_env.draws = has_pygame
        yield make_env
        if not has_pygame:
            for module in [name for name in sys.modules if name.startswith("pettingzoo.mpe")]:
                del sys.modules[module]


class Restless:
    """Random actions that mostly go on for some steps, so that agents get fast and meet."""

    def __init__(self, world, seed=0, low=0.0, high=1.0):
        self.world, self.low, self.high = world, low, high
        self.rng, self.held = np.random.default_rng(seed), None

    def act(self):
        drawn = sample_actions(self.world, {group.name: None for group in self.world.groups}, self.rng)
        for name, action in drawn.items():
            if action.dtype == np.float32:
                action[...] = self.low + action * (self.high - self.low)
            if self.held is not None:
                keep = self.rng.random(action.shape[:2]) < 0.8
                action[keep] = self.held[name][keep]
        self.held = drawn
        return drawn


def of_copy(world, grouped, copy):
    """Arrays (B, N, ...) by group -> one copy's by agent."""
    return {
        agent: grouped[group.name][copy, index] for group in world.groups for index, agent in enumerate(group.agents)
    }


def assert_plays_like_pettingzoo(world, references, player):
    """Whole episodes in a row: of the copies of `world`, and of one PettingZoo environment for each."""
    for episode in range(EPISODES):
        observations = world.reset(SEEDS if episode == 0 else None)
        theirs = [
            env.reset(seed=seed)[0] if episode == 0 else env.reset()[0]
            for env, seed in zip(references, SEEDS, strict=True)
        ]
        for step in range(1, world.config.max_cycles + 1):
            for copy, observed in enumerate(theirs):
                ours = of_copy(world, observations, copy)
                assert list(ours) == list(observed)
                for agent, expected in observed.items():
                    assert ours[agent].dtype == expected.dtype
                    assert np.array_equal(ours[agent], expected), f"episode {episode}, step {step}, {agent}"
            actions = player.act()
            result, theirs = world.step(actions), []
            observations = result.observations
            for copy, env in enumerate(references):
                observed, rewards, terminated, truncated, _ = env.step(of_copy(world, actions, copy))
                theirs.append(observed)
                for agent, reward in of_copy(world, result.rewards, copy).items():
                    assert reward == np.float32(rewards[agent]), f"episode {episode}, step {step}, {agent}"
                assert set(terminated.values()) == {bool(result.terminated[copy])} == {False}
                assert set(truncated.values()) == {bool(result.truncated[copy])} == {step == world.config.max_cycles}
        assert not any(env.agents for env in references)


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=lambda part: str(part))
def test_plays_like_pettingzoo(pettingzoo_env, name, settings, continuous):
    settings = settings | {"continuous_actions": continuous}
    world = make(name, len(SEEDS), **settings)
    references = [pettingzoo_env(name, **settings) for _ in SEEDS]
    for group in world.groups:
        for agent in group.agents:
            assert group.observation_space == references[0].observation_space(agent)
            assert group.action_space == references[0].action_space(agent)
    assert_plays_like_pettingzoo(world, references, Restless(world))


@pytest.mark.parametrize("name", WORLDS)
def test_thrust_out_of_bounds_is_clipped_like_pettingzoos(pettingzoo_env, name):
    world = make(name, len(SEEDS), continuous_actions=True)
    references = [pettingzoo_env(name, continuous_actions=True) for _ in SEEDS]
    assert_plays_like_pettingzoo(world, references, Restless(world, low=-0.5, high=1.5))


def test_defaults_are_pettingzoos(pettingzoo_env):
    for name in WORLDS:
        env, config = pettingzoo_env(name).unwrapped, envs.default_config(name)
        for key in ("max_cycles", "continuous_actions", "dynamic_rescaling", "local_ratio"):
            if hasattr(config, key):
                assert getattr(env, key) == getattr(config, key)
        assert [agent.name for agent in env.world.agents] == [a for g in make(name).groups for a in g.agents]
        assert len(env.world.landmarks) == len(make(name).landmarks)
        assert config.n_agents == len(env.world.agents)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mpe/simple_spread", {"n_agents": 9, "max_cycles": 5}),
        ("mpe/simple_spread", {"n_agents": 1, "continuous_actions": True}),
        ("mpe/simple_adversary", {"num_good": 1, "max_cycles": 1, "continuous_actions": True}),
        ("mpe/simple_tag", {"num_good": 2, "num_obstacles": 0, "continuous_actions": True}),
    ],
    ids=lambda part: str(part),
)
def test_other_settings_keep_the_contract_too(name, settings):
    config = envs.default_config(name, **settings)
    check_world(lambda copies: envs.make_world(config, copies), steps=30)


# Metrics, each worked out anew from observations and rewards.


def finished(world, seed=0):
    """Plays one episode: the rewards of all steps by group, (steps, B, N), the last observations, the metrics."""
    world.reset([seed + copy for copy in range(world.num_envs)])
    player = Restless(world, seed)
    steps = [world.step(player.act()) for _ in range(world.config.max_cycles)]
    rewards = {group.name: np.stack([step.rewards[group.name] for step in steps]) for group in world.groups}
    return rewards, steps[-1].observations, world.episode_metrics(np.arange(world.num_envs))


def test_metrics_of_simple_spread():
    world = make("mpe/simple_spread", 20, local_ratio=1.0, n_agents=4)
    rewards, observations, metrics = finished(world)
    overlaps = -rewards["agent"].sum(axis=(0, 2))  # each pair is counted by both
    assert overlaps.max() > 0
    assert np.array_equal(metrics["collisions"], overlaps / 2)
    to_landmarks = observations["agent"][..., 4:12].reshape(20, 4, 4, 2)
    nearest = np.linalg.norm(to_landmarks, axis=-1).min(axis=1)
    assert np.array_equal(metrics["landmarks_covered"], (nearest < 0.1).sum(axis=1))
    assert metrics["landmarks_covered"].max() > 0
    assert np.allclose(metrics["landmark_distance"], nearest.mean(axis=1))


def test_metrics_of_simple_adversary():
    rewards, observations, metrics = finished(make("mpe/simple_adversary", 20, num_good=3))
    nearest = np.linalg.norm(observations["agent"][..., :2], axis=-1).min(axis=1)
    assert np.allclose(metrics["agent_distance"], nearest)
    assert np.allclose(metrics["adversary_distance"], -rewards["adversary"][-1, :, 0])


def test_metrics_of_simple_tag():
    rewards, _, metrics = finished(make("mpe/simple_tag", 30, num_good=2, num_adversaries=3, max_cycles=50))
    assert metrics["catches"].max() > 0
    assert np.array_equal(metrics["catches"], rewards["adversary"][..., 0].sum(axis=0) / 10)


def test_metrics_start_anew_with_each_episode():
    for name, metric in (("mpe/simple_spread", "collisions"), ("mpe/simple_tag", "catches")):
        world = make(name, 30, max_cycles=100)
        _, _, metrics = finished(world)
        played = np.flatnonzero(metrics[metric])
        world.reset(copies=played[:1])
        now = world.episode_metrics(np.arange(30))[metric]
        assert now[played[0]] == 0
        assert np.array_equal(np.delete(now, played[0]), np.delete(metrics[metric], played[0]))


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_dispatcher_covers_every_landmark(continuous):
    world = make("mpe/simple_spread", 20, n_agents=4, continuous_actions=continuous, max_cycles=40)
    dispatcher = envs.baseline_class("mpe/simple_spread")(world)
    observations = world.reset(range(20))
    for _ in range(40):
        observations = world.step(dispatcher.act(observations)).observations
    nearest = world.episode_metrics(np.arange(20))["landmark_distance"]
    assert nearest.mean() < (0.05 if continuous else 0.12), "within what one step of thrust can correct"


# Actions and settings that are refused.


def test_wrong_actions_are_refused():
    world = make("mpe/simple_tag", 2)
    world.reset([0, 1])
    right = {"adversary": np.zeros((2, 3), np.int64), "agent": np.zeros((2, 1), np.int64)}
    world.step(right)
    for wrong in (np.full((2, 1), 5), np.full((2, 1), -1)):
        with pytest.raises(ValueError, match=r"actions of agent must be in 0\.\.4, got"):
            world.step(right | {"agent": wrong})
    with pytest.raises(ValueError, match=r"actions of adversary must have the shape \(2, 3\), got \(2,\)"):
        world.step(right | {"adversary": np.zeros(2, np.int64)})
    world = make("mpe/simple_spread", continuous_actions=True)
    world.reset([0])
    with pytest.raises(ValueError, match="actions of agent must be numbers, got nan"):
        world.step({"agent": np.full((1, 3, 5), np.nan)})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env=mpe/simple_spread", "env.n_agents=0"], "env.n_agents must be at least 1, got 0"),
        (["env=mpe/simple_spread", "env.max_cycles=0"], "env.max_cycles must be at least 1, got 0"),
        (["env=mpe/simple_spread", "env.local_ratio=1.5"], r"env.local_ratio must be in [0, 1], got 1.5"),
        (["env=mpe/simple_spread", "env.local_ratio=nan"], r"env.local_ratio must be in [0, 1], got nan"),
        (["env=mpe/simple_spread", "env.N=4"], "key 'env.N' is not known"),
        (["env=mpe/simple_adversary", "env.num_good=0"], "env.num_good must be at least 1, got 0"),
        (["env=mpe/simple_tag", "env.num_adversaries=0"], "env.num_adversaries must be at least 1, got 0"),
        (["env=mpe/simple_tag", "env.num_obstacles=-1"], "env.num_obstacles must be at least 0, got -1"),
        (["env=mpe/simple_tag", "env.continuous_actions=some"], "env.continuous_actions must be true or false"),
        (["env=mpe/simple_spred"], "env 'mpe/simple_spred' is not known: did you mean 'mpe/simple_spread'?"),
        (["env=simple_tag"], "env 'simple_tag' is not known: did you mean 'mpe/simple_tag'?"),
        (["env=mpe"], "env 'mpe' is not known"),
        (["-m", "env=mpe/simple_tag,mpe/simple_tg"], "env 'mpe/simple_tg' is not known: did you mean 'mpe/simple_tag'"),
        # 10 copies of 3 + 2 agents, in groups that no setting counts alone
        (
            ["env=mpe/simple_tag", "env.num_good=2", "algorithm.train_batch_size=49", "algorithm.minibatch_size=9"],
            "algorithm.train_batch_size must be at least 50, one step of every agent",
        ),
        (
            ["env=mpe/simple_spread", "search=pbt", "+space.env.n_agents.randint=[2,5]"],
            "space.env.n_agents must be left out under search=pbt",
        ),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_wrong_settings_are_refused_on_the_command_line(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_plans_both_groups_and_searched_worlds(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = "+space={env:{choice:[mpe/simple_tag,mpe/simple_spread]},env.max_cycles:{randint:[10,50]}}"
    assert main(["env=mpe/simple_tag", "search=random", space, "dry_run=true"]) == 0
    printed = capsys.readouterr().out
    assert "env         mpe/simple_tag: 3 adversary, 1 agent" in printed
    assert "env         mpe/simple_spread: 3 agent" in printed
    assert "searched  env.max_cycles: {randint: [10, 50]}" in printed


# Pictures and speed.


@pytest.mark.parametrize("name", WORLDS)
def test_picture_has_the_colours_of_the_game(name):
    world = make(name, 2)
    world.reset([3, 4])
    frame = world.render(1)
    assert frame.shape == (700, 700, 3)
    assert frame.dtype == np.uint8
    assert tuple(frame[0, 0]) == (255, 255, 255)
    colours = {"simple_spread": (70, 70, 170), "simple_adversary": (30, 130, 30), "simple_tag": (170, 70, 70)}
    assert (frame == colours[name.removeprefix("mpe/")]).all(axis=-1).any(), "agents, the goal, adversaries"
    assert not np.array_equal(frame, world.render(0))


@pytest.mark.parametrize("name", WORLDS)
def test_picture_is_pettingzoos_with_smooth_edges(pettingzoo_env, name):
    if not pettingzoo_env.draws:
        pytest.skip("pygame is not installed")
    world, env = make(name), pettingzoo_env(name, render_mode="rgb_array")
    player = Restless(world)
    world.reset([5])
    env.reset(seed=5)
    for _ in range(20):
        actions = player.act()
        world.step(actions)
        env.step(of_copy(world, actions, 0))
    difference = np.abs(world.render().astype(int) - env.render()).max(axis=-1)
    assert (difference > 8).mean() < 0.01, "more than the edges differ"


def test_dynamic_rescaling_shrinks_the_discs_of_a_wide_view():
    def painted(rescaling):
        world = make("mpe/simple_tag", dynamic_rescaling=rescaling, max_cycles=200)
        world.reset([0])
        for _ in range(100):  # all run off to the right, far apart
            world.step({"adversary": np.array([[2, 1, 3]]), "agent": np.array([[4]])})
        return (world.render() < 255).any(axis=-1).sum()

    assert painted(True) < painted(False) / 4


def test_a_step_of_many_copies_is_fast():
    # About 1.5 M agent-steps/s on one core (AMD EPYC); the limit leaves room for a busy machine.
    world = make("mpe/simple_spread", 100)
    observations = world.reset(range(100))
    actions = sample_actions(world, observations, np.random.default_rng(0))

    def play():
        start = time.process_time()
        for _ in range(100):
            step = world.step(actions)
            if step.truncated.any():
                world.reset(copies=np.flatnonzero(step.truncated))
        return time.process_time() - start

    best = min(play() for _ in range(5))
    assert 100 * 100 * 3 / best > 400_000, f"{100 * 100 * 3 / best:.0f} agent-steps/s"


def test_names_of_the_metrics_are_words():
    for name in WORLDS:
        for metric in make(name).episode_metrics(np.arange(0)):
            assert re.fullmatch("[a-z_]+", metric)
