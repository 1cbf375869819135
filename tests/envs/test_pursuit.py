"""Pursuit: equal to PettingZoo's step by step; its starts, metrics, settings and speed."""

import importlib
import importlib.util
import inspect
import sys
import time
from collections import Counter
from unittest.mock import MagicMock

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from marl_tune import envs
from marl_tune.__main__ import main
from marl_tune.envs.sisl.pursuit import GROUP, Pursuit
from marl_tune.envs.sisl.pursuit_map import open_sides, wall_cells
from marl_tune.envs.testing import check_world

NAME = "sisl/pursuit"
SEEDS = (0, 7, 123_456)  # one a copy
SMALL = {"x_size": 6, "y_size": 5, "n_evaders": 3, "n_pursuers": 3, "obs_range": 3, "max_cycles": 40}
EASY = SMALL | {"surround": False, "n_catch": 1}  # all are soon caught, even by pursuers that know nothing
PLAYED = [
    (30, {}),
    (120, SMALL),
    (150, EASY),
    (60, EASY | {"n_catch": 2, "n_pursuers": 5}),
    (32, {"freeze_evaders": True, "max_cycles": 25}),
    (60, {"shared_reward": False, "n_pursuers": 3, "tag_reward": 0.37, "catch_reward": 1.3, "max_cycles": 30}),
    (60, {"constraint_window": 0.5, "n_evaders": 2, "n_pursuers": 2, "max_cycles": 12}),
    (25, {"obs_range": 5, "n_pursuers": 12, "n_evaders": 8}),
    (60, {"obs_range": 1, "n_pursuers": 1, "n_evaders": 1, "x_size": 9, "y_size": 4, "max_cycles": 9}),
    (60, {"obs_range": 11, "x_size": 3, "y_size": 5, "n_pursuers": 2, "n_evaders": 2, "max_cycles": 20}),
    (150, {"x_size": 4, "y_size": 4, "n_pursuers": 3, "n_evaders": 2, "freeze_evaders": True}),
]  # steps of each copy, settings


class Exact(Pursuit):
    """Pursuit that keeps the rewards of its last step as they were before they became float32."""

    def rewards_of_step(self, before, after, catchers):
        self.exact = super().rewards_of_step(before, after, catchers)
        return self.exact


def config_of(**changed):
    return envs.default_config(NAME, **changed)


def make(num_envs=1, **changed):
    return Exact(config_of(**changed), num_envs)


@pytest.fixture(scope="module")
def pettingzoo_env():
    """PettingZoo's environment of our settings. It needs pygame, but only to draw: where that is not installed an empty
    stand-in does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDL_VIDEODRIVER", "dummy")
        patch.setenv("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        missing = importlib.util.find_spec("pygame") is None
        if missing:
            patch.setitem(sys.modules, "pygame", MagicMock())
        yield importlib.import_module("pettingzoo.sisl.pursuit_v4").parallel_env
        if missing:
            for module in [name for name in sys.modules if name.startswith("pettingzoo.sisl")]:
                del sys.modules[module]


class Drifter:
    """Random actions that mostly go on for some steps, so that pursuers get about."""

    def __init__(self, world, seed=0):
        self.shape, self.rng = (world.num_envs, world.config.n_pursuers), np.random.default_rng(seed)
        self.held = self.rng.integers(5, size=self.shape)

    def act(self):
        drawn = self.rng.integers(5, size=self.shape)
        self.held = np.where(self.rng.random(self.shape) < 0.6, self.held, drawn)
        return self.held


def assert_sees_like_pettingzoo(world, observed, copy, expected):
    assert list(expected) == list(world.groups[0].agents)
    for index, array in enumerate(expected.values()):
        assert observed[copy, index].dtype == array.dtype
        assert np.array_equal(observed[copy, index], array), f"copy {copy}, pursuer {index}"


def assert_plays_like_pettingzoo(world, references, steps, actor, seeds=SEEDS):
    """Plays every copy on, whatever the others do, and begins an episode anew, without a seed, when it has ended.

    Returns:
        How often each end has come, and how many evaders have been caught in all.
    """
    seen, counts = world.reset(seeds)[GROUP], Counter()
    for copy, (env, seed) in enumerate(zip(references, seeds, strict=True)):
        assert_sees_like_pettingzoo(world, seen, copy, env.reset(seed=seed)[0])
    for _ in range(steps):
        actions = actor.act()
        step = world.step({GROUP: actions})
        ended, first = [], {}
        for copy, env in enumerate(references):
            ids = world.groups[0].agents
            expected, rewards, terminated, truncated, _ = env.step(dict(zip(ids, actions[copy], strict=True)))
            assert_sees_like_pettingzoo(world, step.observations[GROUP], copy, expected)
            assert world.exact[copy].tolist() == [rewards[agent] for agent in ids], "bit by bit, in float64"
            assert step.rewards[GROUP][copy].tolist() == [np.float32(rewards[agent]) for agent in ids]
            assert set(terminated.values()) == {bool(step.terminated[copy])}
            assert set(truncated.values()) == {bool(step.truncated[copy])}
            left = env.unwrapped.env.evader_layer.n_agents()
            caught = world.episode_metrics(np.array([copy]))["evaders_caught"][0]
            assert caught == world.config.n_evaders - left
            if step.terminated[copy] or step.truncated[copy]:
                assert not env.agents
                counts += Counter(terminated=int(step.terminated[copy]), truncated=int(step.truncated[copy]))
                counts["caught"] += int(caught)
                ended.append(copy)
                first[copy] = env.reset()[0]
        if ended:
            seen = world.reset(copies=np.array(ended))[GROUP]
            for copy, expected in first.items():
                assert_sees_like_pettingzoo(world, seen, copy, expected)
    return counts


@pytest.mark.parametrize(("steps", "changed"), PLAYED, ids=lambda part: str(part))
def test_plays_like_pettingzoo(pettingzoo_env, steps, changed):
    world, references = make(len(SEEDS), **changed), [pettingzoo_env(**changed) for _ in SEEDS]
    for agent in world.groups[0].agents:
        assert world.groups[0].observation_space == references[0].observation_space(agent)
        assert world.groups[0].action_space == references[0].action_space(agent)
    counts = assert_plays_like_pettingzoo(world, references, steps, Drifter(world))
    if changed == EASY:
        assert counts["terminated"] >= 3, "whole episodes, at different times"
    if changed.get("x_size") == 4:
        assert counts["terminated"] >= 2, "by surrounding every evader"


def test_rewards_of_a_single_copy_are_added_up_in_pettingzoos_order(pettingzoo_env):
    changed = {"n_pursuers": 12, "tag_reward": 0.37}
    world = make(1, **changed)
    assert_plays_like_pettingzoo(world, [pettingzoo_env(**changed)], 15, Drifter(world), [1])


def least_room(walls, window):
    """Free cells of the part of the map that has fewest, of all that the start may be drawn in."""
    width, height = (int(size * window) for size in walls.shape)
    if not width or not height:
        return 0
    parts = np.lib.stride_tricks.sliding_window_view(~walls, (width, height))
    return parts.sum(axis=(2, 3)).min()


@given(
    sizes=st.tuples(st.integers(2, 9), st.integers(2, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 3)),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    n_catch=st.integers(1, 3),
    window=st.sampled_from((1.0, 0.8, 0.65)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_plays_like_pettingzoo_by_any_rules(pettingzoo_env, sizes, flags, n_catch, window, seed):
    x_size, y_size, pursuers, evaders, reach = sizes
    # Each agent takes the place of 5 at most. Where room can run out, PettingZoo's start may never end.
    assume(5 * (max(pursuers, evaders) - 1) < least_room(wall_cells(x_size, y_size), window))
    changed = dict(zip(("shared_reward", "freeze_evaders", "surround"), flags, strict=True)) | {"max_cycles": 10}
    changed |= {"x_size": x_size, "y_size": y_size, "n_pursuers": pursuers, "n_evaders": evaders}
    changed |= {"obs_range": 2 * reach + 1, "n_catch": n_catch, "constraint_window": window}
    world = make(1, **changed)
    assert_plays_like_pettingzoo(world, [pettingzoo_env(**changed)], 15, Drifter(world, seed), [seed])


def test_catching_the_last_evader_in_the_last_step_truncates(pettingzoo_env):
    def play(limit):
        changed = EASY | {"max_cycles": limit}
        world, steps = make(**changed), 0
        world.reset([3])
        actor, ended = Drifter(world), False
        while not ended:
            step, steps = world.step({GROUP: actor.act()}), steps + 1
            ended = step.terminated[0] or step.truncated[0]
        references = [pettingzoo_env(**changed)]
        counts = assert_plays_like_pettingzoo(make(**changed), references, steps, Drifter(world), [3])
        return steps, counts

    steps, counts = play(1000)
    assert (counts["terminated"], counts["truncated"], counts["caught"]) == (1, 0, 3)
    steps_again, counts = play(steps)
    assert steps_again == steps
    assert (counts["terminated"], counts["truncated"], counts["caught"]) == (0, 1, 3)


def test_defaults_are_pettingzoos(pettingzoo_env):
    base = importlib.import_module("pettingzoo.sisl.pursuit.pursuit_base").Pursuit
    theirs = {name: parameter.default for name, parameter in inspect.signature(base).parameters.items()}
    ours = {name: value for name, value in vars(config_of()).items() if name not in ("name", "curriculum")}
    for needless in ("evader_controller", "pursuer_controller", "render_mode"):
        del theirs[needless]
    assert ours == theirs


@pytest.mark.parametrize("changed", [EASY, SMALL | {"shared_reward": False, "max_cycles": 7}], ids=["easy", "own"])
def test_other_settings_keep_the_contract_too(changed):
    config = config_of(**changed)
    check_world(lambda copies: envs.make_world(config, copies), steps=60)


# Starts, and the sides of cells: without PettingZoo.


def slow_start(walls, window, counts, rng):
    """As `draw_start`, cell by cell."""
    corner = [rng.uniform(0.0, 1.0 - window) for _ in range(2)]
    low = [int(size * at) for size, at in zip(walls.shape, corner, strict=True)]
    high = [int(size * (at + window)) for size, at in zip(walls.shape, corner, strict=True)]
    placed = []
    for count in counts:
        kind = []

        def fits(cell, kind=kind):
            return not walls[cell] and all(abs(cell[0] - x) + abs(cell[1] - y) > 1 for x, y in kind)

        for _ in range(count):
            if not any(fits((x, y)) for x in range(low[0], high[0]) for y in range(low[1], high[1])):
                return None
            while not fits(cell := (int(rng.integers(low[0], high[0])), int(rng.integers(low[1], high[1])))):
                pass
            kind.append(cell)
        placed += kind
    return placed


@pytest.mark.parametrize(("window", "counts"), [(1.0, (3, 4)), (0.7, (3, 6)), (0.05, (1, 1))])
def test_starts_are_drawn_anew_where_there_is_no_room(window, counts):
    walls, jams = wall_cells(8, 7), 0
    world = make(40, x_size=8, y_size=7, n_pursuers=counts[0], n_evaders=counts[1], constraint_window=window)
    world.reset(range(40))
    for copy in range(40):
        rng = np.random.default_rng(copy)
        while (cells := slow_start(walls, window, counts, rng)) is None:
            jams += 1
        ours = np.concatenate((world.cell_xy[world.pursuers[copy]], world.cell_xy[world.evaders[copy]]))
        assert ours.tolist() == [list(cell) for cell in cells]
        assert world.get_state()["generators"][copy] == rng.bit_generator.state
    assert (jams > 0) == (window < 1.0)


@pytest.mark.parametrize("size", [(16, 16), (2, 9), (3, 3), (4, 5), (7, 4)])
def test_open_sides_are_those_that_a_pursuer_can_hold(size):
    walls = wall_cells(*size)
    sides = open_sides(walls)
    for x, y in np.argwhere(~walls):
        around = [(x + dx, y + dy) for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1))]
        held = [at for at in around if 0 <= at[0] < size[0] and 0 <= at[1] < size[1] and not walls[at]]
        assert sides[x, y] == len(held)


# Metrics and states.


def test_metrics_count_catches_and_tags():
    world = make(20, **EASY, catch_reward=0.0, urgency_reward=0.0, tag_reward=1.0, shared_reward=False)
    world.reset(range(20))
    actor, tags = Drifter(world), np.zeros(20)
    for _ in range(10):
        on_map = world.evaders_on.reshape(20, world.height, world.width)
        world.step({GROUP: actor.act()})
        for copy in range(20):
            for x, y in world.cell_xy[world.pursuers[copy]]:
                for dx, dy in ((-1, 0), (1, 0), (0, 1), (0, -1)):
                    column, row = np.clip((x + dx, y + dy), 0, (5, 4)) + world.border
                    tags[copy] += on_map[copy, row, column]
    metrics = world.episode_metrics(np.arange(20))
    assert np.array_equal(metrics["tags"], tags)
    assert tags.max() > 0
    assert np.array_equal(metrics["evaders_caught"], 3 - world.free.sum(axis=1))
    assert np.array_equal(metrics["evaders_caught_fraction"], metrics["evaders_caught"] / 3)
    played = np.flatnonzero(metrics["evaders_caught"])[:1]
    world.reset(copies=played)
    now = world.episode_metrics(np.arange(20))
    assert now["evaders_caught"][played] == now["tags"][played] == 0
    assert np.array_equal(np.delete(now["tags"], played), np.delete(metrics["tags"], played))


def test_a_restored_world_plays_on_as_the_saved_one():
    def record(world, actions):
        steps = [world.step({GROUP: action}) for action in actions]
        return [(step.observations[GROUP], step.rewards[GROUP], step.terminated) for step in steps]

    world, other = make(3), make(3)
    world.reset(SEEDS)
    rng = np.random.default_rng(0)
    actions = rng.integers(5, size=(60, 3, 8))
    record(world, actions[:30])
    state = world.get_state()
    other.reset([5, 6, 7])
    other.set_state(state)
    for ours, theirs in zip(record(world, actions[30:]), record(other, actions[30:]), strict=True):
        for left, right in zip(ours, theirs, strict=True):
            assert np.array_equal(left, right)
    with pytest.raises(ValueError, match="state of another world: pursuers"):
        make(2).set_state(state)


# Actions and settings that are refused.


def test_wrong_actions_are_refused():
    world = make(2)
    world.reset([0, 1])
    for wrong in (-1, 5):
        with pytest.raises(ValueError, match=r"actions of pursuer must be in 0\.\.4, got"):
            world.step({GROUP: np.full((2, 8), wrong)})
    with pytest.raises(ValueError, match=r"actions of pursuer must have the shape \(2, 8\), got \(2, 7\)"):
        world.step({GROUP: np.zeros((2, 7), np.int64)})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        *(({key: 0}, f"env.{key} must be at least 1, got 0") for key in ("x_size", "y_size", "max_cycles", "n_catch")),
        *(({key: 0}, f"env.{key} must be at least 1, got 0") for key in ("n_evaders", "n_pursuers", "obs_range")),
        ({"obs_range": 6}, "env.obs_range must be odd, as a pursuer sees from the middle, got 6"),
        ({"tag_reward": float("nan")}, "env.tag_reward must be finite, got nan"),
        ({"catch_reward": float("inf")}, "env.catch_reward must be finite, got inf"),
        ({"urgency_reward": -float("inf")}, "env.urgency_reward must be finite, got -inf"),
        ({"constraint_window": 0.0}, r"env.constraint_window must be in \(0, 1\], got 0.0"),
        ({"constraint_window": 1.5}, r"env.constraint_window must be in \(0, 1\], got 1.5"),
        ({"constraint_window": 0.01}, "must leave room to start.* 8 and 30 on a map of 16 x 16 .*window=0.01"),
        ({"x_size": 4}, "env.n_pursuers and env.n_evaders must leave room to start, .* 8 and 30 on a map of 4 x 16"),
        ({"n_hunters": 2}, "env.n_hunters is not a setting of sisl/pursuit"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        config_of(**changed)


def test_wrong_settings_are_refused_on_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, message in (
        (
            ["env=sisl/pursuit", "env.obs_range=4"],
            "env.obs_range must be odd, as a pursuer sees from the middle, got 4",
        ),
        (["env=sisl/pursuit", "env.surround=all"], "env.surround must be true or false"),
        (["env=sisl/pursuits"], "env 'sisl/pursuits' is not known: did you mean 'sisl/pursuit'?"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# Speed.


def test_a_step_of_many_copies_is_fast():
    # About 250,000 agent-steps/s on one core (AMD EPYC); the limit leaves room for a busy machine.
    world = make(16)
    world.reset(range(16))
    actor = Drifter(world)
    actions = [actor.act() for _ in range(100)]

    def play():
        start = time.process_time()
        for action in actions:
            step = world.step({GROUP: action})
            if (step.terminated | step.truncated).any():
                world.reset(copies=np.flatnonzero(step.terminated | step.truncated))
        return time.process_time() - start

    rate = 100 * 16 * 8 / min(play() for _ in range(5))
    assert rate > 60_000, f"{rate:.0f} agent-steps/s"
