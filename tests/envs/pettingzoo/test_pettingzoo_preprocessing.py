"""Preprocessing of PettingZoo's worlds: against a slow and obvious NumPy, and against SuperSuit's own wrappers."""

import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import yaml

from marl_tune.envs import default_config, make_world
from marl_tune.envs.pettingzoo.loading import make_env
from marl_tune.envs.pettingzoo.preprocess_settings import PreprocessConfig
from marl_tune.envs.pettingzoo.preprocessing import preprocessed
from marl_tune.envs.pettingzoo.unchecked import UncheckedParallelEnv
from marl_tune.envs.testing import check_world, sample_actions

pytest.importorskip("supersuit")
ROOT = Path(__file__).resolve().parents[3]
PROBES, TURNS = "pettingzoo_probes", "pettingzoo_turns"
OFF = yaml.safe_load((ROOT / "conf" / "env" / "pettingzoo.yaml").read_text())["preprocess"]


def world_of(world_id, kwargs=None, copies=1, **settings):
    config = default_config("pettingzoo", id=world_id, kwargs=kwargs or {}, preprocess=OFF | settings)
    return make_world(config, copies)


def changed(env, turns=False, **settings):
    return preprocessed(env, turns, PreprocessConfig(**OFF | settings), "the world")


def world_with(observed, acted=None):
    """A stub of a world: agent -> its spaces."""
    acted = acted or dict.fromkeys(observed, gym.spaces.Discrete(2))
    return SimpleNamespace(
        possible_agents=list(observed), observation_space=observed.__getitem__, action_space=acted.__getitem__
    )


# What is seen, step by step.


def expected(seen, place, agents, spaces, settings):
    """What an agent sees after `seen`, the observations of its episode so far: one loop for each change."""
    frames = []
    for observation in seen:
        x = np.array(observation)
        if settings.get("grey"):
            lit = [[int(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in row] for row in x.astype(float)]
            x = np.array(lit, np.uint8)[:, :, None]
        if settings.get("normalize_observations"):
            low, high = (bound.astype(np.float64) for bound in (spaces[place].low, spaces[place].high))
            x = (x - low) / (high - low)
        frames.append(x)
    count = settings.get("frame_stack") or 1
    frames = [np.zeros_like(frames[0])] * (count - len(frames)) + frames[-count:]
    x = np.concatenate(frames, axis=-1)
    if settings.get("pad_observations"):
        x = np.append(x, [0.0] * (max(space.shape[0] for space in spaces) * count - len(x)))
    if settings.get("agent_indicator"):
        top = 255 if x.dtype == np.uint8 else 1
        marks = [np.full((*x.shape[:-1], 1), top if other == place else 0) for other in range(agents)]
        x = np.concatenate([x, *marks], axis=-1)
    return x


SEEN = [
    (PROBES, {"probe": "walkers"}, {"frame_stack": 3}),
    (PROBES, {"probe": "walkers"}, {"agent_indicator": True}),
    (PROBES, {"probe": "masked"}, {"frame_stack": 2, "agent_indicator": True}),
    (PROBES, {"probe": "camera"}, {"grey": True}),
    (PROBES, {"probe": "camera"}, {"grey": True, "frame_stack": 4, "agent_indicator": True}),
    (PROBES, {"probe": "camera"}, {"normalize_observations": True, "frame_stack": 2}),
    (PROBES, {"probe": "mortals"}, {"frame_stack": 2, "agent_indicator": True}),
    ("mpe/simple_tag_v3", {"max_cycles": 5}, {"pad_observations": True, "agent_indicator": True}),
    ("mpe/simple_tag_v3", {"max_cycles": 5}, {"frame_stack": 2, "pad_observations": True}),
]


@pytest.mark.parametrize(("world_id", "kwargs", "settings"), SEEN)
def test_agents_see_what_slow_loops_say(world_id, kwargs, settings):
    world, (env, _) = world_of(world_id, kwargs, **settings), make_env(world_id, kwargs)
    rng, agents = np.random.default_rng(0), env.possible_agents
    spaces = [env.observation_space(agent) for agent in agents]
    spaces = [space["observation"] if isinstance(space, gym.spaces.Dict) else space for space in spaces]
    observations, seen = world.reset([3]), {agent: [] for agent in agents}
    raw, ends = env.reset(seed=3)[0], 0
    for _ in range(40):
        for agent, observation in raw.items():
            masked = isinstance(observation, dict)
            seen[agent].append(np.copy(observation["observation"] if masked else observation))
            group, column = place_of(world, agent)
            rows = observations[group.name]
            if masked:
                assert np.array_equal(rows["action_mask"][0, column], observation["action_mask"])
                rows = rows["observation"]
            row = expected(seen[agent], agents.index(agent), len(agents), spaces, settings)
            assert rows.dtype == (np.float32 if settings.get("normalize_observations") else raw_type(world_id, kwargs))
            assert rows[0, column].shape == row.shape
            np.testing.assert_allclose(rows[0, column], row, rtol=1e-6, atol=1 if settings.get("grey") else 1e-7)
        actions = sample_actions(world, observations, rng)
        acts = {a: actions[place_of(world, a)[0].name][0, place_of(world, a)[1]] for a in env.agents}
        step, (raw, rewards, *_) = world.step(actions), env.step(acts)
        observations = step.observations
        for agent in acts:
            group, column = place_of(world, agent)
            assert step.rewards[group.name][0, column] == np.float32(rewards[agent])
        if not env.agents:
            observations, raw, ends = world.reset(), env.reset()[0], ends + 1
            seen = {agent: [] for agent in agents}
    assert ends >= 4


def raw_type(world_id, kwargs):
    return np.uint8 if kwargs.get("probe") == "camera" else np.float32


def place_of(world, agent):
    return next((group, group.agents.index(agent)) for group in world.groups if agent in group.agents)


@pytest.mark.parametrize("world_id", ["classic/tictactoe_v3", TURNS])
def test_a_stack_holds_what_an_agent_saw_on_its_own_turns(world_id):
    settings = {"frame_stack": 3, "agent_indicator": True}
    world, (env, turns) = world_of(world_id, **settings), make_env(world_id, {})
    assert turns
    rng, agents, games = np.random.default_rng(1), env.possible_agents, 0
    observations = world.reset([5])
    env.reset(seed=5)
    seen = {agent: [] for agent in agents}
    while games < 5:
        agent = env.agent_selection
        observation, _, terminated, truncated, _ = env.last()
        seen[agent].append(observation["observation"] if isinstance(observation, dict) else observation)
        group, column = place_of(world, agent)
        rows = observations[group.name]
        rows = rows["observation"] if isinstance(rows, dict) else rows
        row = expected(seen[agent], agents.index(agent), len(agents), None, settings)
        assert np.array_equal(rows[0, column], row)
        if terminated or truncated:
            env.step(None)
        else:
            actions = sample_actions(world, observations, rng)
            env.step(actions[group.name][0, column])
            observations = world.step(actions).observations
        if not env.agents:
            observations, games = world.reset(), games + 1
            env.reset()
            seen = {agent: [] for agent in agents}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_pictures_are_those_of_supersuits_own_wrappers():
    import supersuit

    ours, theirs = (make_env(PROBES, {"probe": "camera"})[0] for _ in range(2))
    ours = changed(ours, grey=True, resize=[4, 9], frame_stack=3)
    theirs = supersuit.frame_stack_v1(supersuit.resize_v1(supersuit.color_reduction_v0(theirs, "full"), 9, 4), 3)
    assert ours.observation_space("walker_0") == theirs.observation_space("walker_0")
    seen, wanted = ours.reset(seed=2)[0], theirs.reset(seed=2)[0]
    for _ in range(3):
        for agent, picture in wanted.items():
            assert seen[agent].dtype == picture.dtype == np.uint8
            assert np.array_equal(seen[agent], picture)
        actions = dict.fromkeys(ours.agents, 1)
        seen, wanted = ours.step(actions)[0], theirs.step(actions)[0]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_padding_and_ids_are_those_of_supersuits_own_wrappers():
    import supersuit

    ours, theirs = (make_env("mpe/simple_tag_v3", {})[0] for _ in range(2))
    ours = changed(ours, pad_observations=True, agent_indicator=True)
    theirs = supersuit.agent_indicator_v0(supersuit.pad_observations_v0(theirs))
    for agent in ours.possible_agents:
        assert ours.observation_space(agent) == theirs.observation_space(agent)
    seen, wanted = ours.reset(seed=2)[0], theirs.reset(seed=2)[0]
    assert all(np.array_equal(seen[agent], row) for agent, row in wanted.items())


def test_padded_agents_are_one_kind():
    world = world_of("mpe/simple_tag_v3", pad_observations=True, agent_indicator=True)
    adversary, agent = world.groups
    assert (adversary.observation_space, adversary.action_space) == (agent.observation_space, agent.action_space)


# What is done and earned.


def test_choices_that_an_agent_does_not_have_are_its_first_one_and_masked():
    board, mask = gym.spaces.Box(0, 1, (2,), np.int8), gym.spaces.Box(0, 1, (3,), np.int8)
    stub = world_with(
        {"a_0": gym.spaces.Dict(observation=board, action_mask=mask), "b_0": board},
        {"a_0": gym.spaces.Discrete(3), "b_0": gym.spaces.Discrete(5)},
    )
    stub.env_actions = []
    stub.reset = lambda: ({"a_0": {"observation": np.ones(2, np.int8), "action_mask": np.ones(3, np.int8)}}, {})
    stub.step = lambda actions: stub.env_actions.append(actions) or ({}, {}, {}, {}, {})
    env = changed(stub, pad_actions=True)
    assert env.action_space("a_0") == env.action_space("b_0") == gym.spaces.Discrete(5)
    assert env.observation_space("a_0")["action_mask"] == gym.spaces.Box(0, 1, (5,), np.int8)
    assert env.reset()[0]["a_0"]["action_mask"].tolist() == [1, 1, 1, 0, 0]
    for action in range(5):
        env.step({"a_0": action, "b_0": action})
    assert [actions["a_0"] for actions in stub.env_actions] == [0, 1, 2, 0, 0]
    assert [actions["b_0"] for actions in stub.env_actions] == [0, 1, 2, 3, 4]


def test_further_entries_of_a_box_are_left_out_and_clipped():
    wide, narrow = gym.spaces.Box(-2, 2, (3,)), gym.spaces.Box(-1, 1, (2,))
    stub = world_with(dict.fromkeys(["a_0", "b_0"], wide), {"a_0": wide, "b_0": narrow})
    stub.step = lambda actions: (actions, {}, {}, {}, {})
    env = changed(stub, pad_actions=True)
    assert env.action_space("b_0") == wide
    done = env.step(dict.fromkeys(["a_0", "b_0"], np.array([0.5, -1.5, 2.0], np.float32)))[0]
    assert done["a_0"].tolist() == [0.5, -1.5, 2.0]
    assert done["b_0"].tolist() == [0.5, -1.0]


@pytest.mark.parametrize("world_id", [PROBES, TURNS])
def test_rewards_are_scaled_and_then_clipped(world_id):
    plain, shaped = (
        world_of(world_id, copies=3),
        world_of(world_id, copies=3, reward_scale=0.5, clip_reward=[-0.2, 0.3]),
    )
    rng, clipped = np.random.default_rng(0), 0
    observations = plain.reset([1, 2, 3])
    shaped.reset([1, 2, 3])
    for _ in range(60):
        actions = sample_actions(plain, observations, rng)
        one, other = plain.step(actions), shaped.step(actions)
        observations = one.observations
        for name, rewards in one.rewards.items():
            for before, after in zip(rewards.flat, other.rewards[name].flat, strict=True):
                assert after == pytest.approx(min(max(before * 0.5, -0.2), 0.3))
                clipped += after in (np.float32(-0.2), np.float32(0.3))
        if done := np.flatnonzero(one.terminated | one.truncated).tolist():
            observations = plain.reset(copies=np.array(done))
            shaped.reset(copies=np.array(done))
    assert clipped > 10


# The whole.


@pytest.mark.parametrize(
    ("world_id", "kwargs", "settings"),
    [
        (PROBES, {"probe": "camera"}, {"grey": True, "resize": [4, 4], "frame_stack": 3, "agent_indicator": True}),
        (PROBES, {"probe": "masked"}, {"frame_stack": 2, "pad_actions": True, "pad_observations": True}),
        (PROBES, {"probe": "late"}, {"frame_stack": 2, "reward_scale": 0.1}),
        (TURNS, {}, {"frame_stack": 2, "clip_reward": [-1, 1]}),
        ("mpe/simple_tag_v3", {"max_cycles": 7}, {"pad_observations": True, "agent_indicator": True}),
    ],
)
def test_keeps_the_contract(world_id, kwargs, settings):
    """States included: what a stack holds goes on where it was."""
    check_world(lambda copies: world_of(world_id, kwargs, copies, **settings), steps=40)


def test_workers_see_the_same():
    camera = default_config(
        "pettingzoo", id=PROBES, kwargs={"probe": "camera"}, preprocess=OFF | {"grey": True}, workers=2
    )
    check_world(lambda copies: make_world(camera, copies), steps=20)


def test_a_world_without_preprocessing_has_no_further_layer():
    env, _ = make_env("mpe/simple_spread_v3", {})
    assert changed(env) is env
    assert type(env) is UncheckedParallelEnv
    assert world_of("mpe/simple_spread_v3").teams[0].env.__class__ is UncheckedParallelEnv


PIXELS = gym.spaces.Box(0, 255, (4, 4, 3), np.uint8)
VECTOR, LONGER = gym.spaces.Box(0, 1, (3,)), gym.spaces.Box(0, 1, (5,))
WRONG = [
    ({"grey": True}, {"a": VECTOR}, r"grey must be false where .* \(height, width, 3\) of uint8, got .*'a' observes"),
    ({"grey": True}, {"a": gym.spaces.Box(0, 1, (4, 4, 3))}, "grey must be false"),
    ({"resize": [2, 2]}, {"a": VECTOR}, "resize must be null where observations are not pictures"),
    ({"normalize_observations": True}, {"a": gym.spaces.Box(-np.inf, 1, (3,))}, "must be false where .* no bounds"),
    ({"frame_stack": 2}, {"a": gym.spaces.MultiBinary(3)}, "frame_stack must be left off where .* no Box"),
    ({"agent_indicator": True}, {"a": gym.spaces.Dict(x=VECTOR)}, "agent_indicator must be left off"),
    ({"pad_observations": True}, {"a": VECTOR, "b": PIXELS}, "pad_observations must be false where .* number of axes"),
    ({"agent_indicator": True}, {"a": VECTOR, "b": LONGER}, "but for env.preprocess.pad_observations=true"),
]


@pytest.mark.parametrize(("settings", "observed", "message"), WRONG, ids=[bad[2][:20] for bad in WRONG])
def test_what_does_not_suit_a_world_is_refused(settings, observed, message):
    with pytest.raises(ValueError, match=rf"^env\.preprocess\..*{message}"):
        changed(world_with(observed), **settings)


def test_actions_that_cannot_be_one_kind_are_refused():
    kinds = {"a": gym.spaces.Discrete(2), "b": VECTOR}
    with pytest.raises(ValueError, match=r"env\.preprocess\.pad_actions must be false where .* Discrete\(2\), Box"):
        changed(world_with(dict.fromkeys(kinds, VECTOR), kinds), pad_actions=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resize": [4]}, r"resize must be null or \[height, width\], both at least 1, got \[4\]"),
        ({"resize": [0, 4]}, r"resize must be null or \[height, width\], both at least 1, got \[0, 4\]"),
        ({"frame_stack": 0}, "frame_stack must be null or at least 1, got 0"),
        ({"reward_scale": 0.0}, "reward_scale must be null, or finite and above 0, got 0.0"),
        ({"clip_reward": [1.0, -1.0]}, r"clip_reward must be null or \[low, high\], low below high, got \[1.0, -1.0\]"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=rf"^env\.preprocess\.{message}$"):
        PreprocessConfig(**OFF | settings)


def test_without_supersuit_the_command_that_brings_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "supersuit", None)
    with pytest.raises(ValueError, match=r"env\.preprocess\.frame_stack needs .*'supersuit'.*marl-tune\[envs\]\"$"):
        world_of(PROBES, frame_stack=2)
    world_of(PROBES)
