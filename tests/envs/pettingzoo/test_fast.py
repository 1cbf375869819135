"""PettingZoo's worlds that are made fast here: bit by bit what PettingZoo's own parallel API plays."""

import numpy as np
import pettingzoo
import pytest

from marl_tune.envs.pettingzoo import snapshots
from marl_tune.envs.pettingzoo.fast import accelerate
from marl_tune.envs.pettingzoo.loading import import_world, make_env

WATERWORLD, ZOMBIES = "sisl/waterworld_v4", "butterfly/knights_archers_zombies_v10"
PONDS = (
    {},
    {"n_pursuers": 5, "n_coop": 2, "local_ratio": 0.3},
    {"n_pursuers": 5, "speed_features": False, "sensor_range": 0.6, "n_sensors": 7},
    {"n_pursuers": 1, "n_evaders": 2, "n_poisons": 3},
    {"n_pursuers": 1, "speed_features": False, "n_sensors": 1},
    {"n_pursuers": 3, "n_obstacles": 3, "obstacle_coord": None, "radius": 0.04, "max_cycles": 70},
    {
        "n_obstacles": 2,
        "obstacle_coord": [(0.2, 0.3), (0.7, 0.8)],
        "n_evaders": 1,
        "n_poisons": 1,
        "sensor_range": 0.03,
    },
)
CROWDED = {"spawn_rate": 2, "max_zombies": 25}  # so that agents die
FIELDS = (  # arguments, steps, episodes that end within these
    ({}, 330, 2),
    ({**CROWDED, "use_typemasks": True}, 170, 1),
    ({**CROWDED, "num_archers": 1, "num_knights": 3, "killable_knights": False, "max_arrows": 1}, 170, 1),
    ({**CROWDED, "num_archers": 3, "num_knights": 1, "killable_archers": False, "line_death": True}, 300, 2),
    ({**CROWDED, "use_typemasks": True, "sequence_space": True}, 160, 1),
    ({"num_knights": 0, "max_cycles": 40, "pad_observation": False}, 90, 2),
)


def pair(world_id, kwargs):
    """The fast world and PettingZoo's own, untouched."""
    return make_env(world_id, kwargs)[0], import_world(world_id).parallel_env(**kwargs, render_mode="rgb_array")


def chosen(env, rng):
    """A random action for each agent that is there; half of those of archers and knights are attacks."""
    if env.unwrapped.metadata["name"].startswith("waterworld"):
        return {agent: rng.uniform(-1, 1, 2).astype(np.float32) for agent in env.agents}
    return {agent: int(rng.choice(6, p=(0.1, 0.1, 0.1, 0.1, 0.5, 0.1))) for agent in env.agents}


def same(some, others):
    """Whether two answers of `reset` or `step` hold the same agents, numbers, shapes and types in the same order."""
    if isinstance(some, dict):
        return list(some) == list(others) and all(same(some[key], others[key]) for key in some)
    if isinstance(some, tuple):
        return len(some) == len(others) and all(map(same, some, others))
    some, others = np.asarray(some), np.asarray(others)
    return some.dtype == others.dtype and np.array_equal(some, others)


def played(fast, bare, seed, steps, watch=lambda step: None):
    """Plays both, beginning anew where an episode ends, and yields what each step of the fast one brought."""
    rng = np.random.default_rng(seed)
    assert same(fast.reset(seed=seed), bare.reset(seed=seed))
    watch(-1)
    for step in range(steps):
        actions = chosen(bare, rng)
        brought = fast.step(actions)
        assert same(brought, bare.step(actions)), f"step {step}"
        assert fast.agents == bare.agents
        watch(step)
        yield brought
        if not bare.agents:
            assert same(fast.reset(), bare.reset())


@pytest.mark.parametrize(("seed", "kwargs"), list(enumerate(PONDS)), ids=str)
def test_waterworld_is_the_same(seed, kwargs):
    fast, bare = pair(WATERWORLD, kwargs)
    assert type(fast.unwrapped.env).__name__ == "FastWaterworld"
    ours, theirs = fast.unwrapped.env, bare.unwrapped.env

    def seen_before_rounding(step):
        assert all(map(same, ours.last_obs, theirs.last_obs)), f"step {step}"  # float64; agents get float32

    sensed = [
        min(obs[agent][:-2].min() for agent in obs) for obs, *_ in played(fast, bare, seed, 150, seen_before_rounding)
    ]
    assert min(sensed) < 1


def test_waterworld_says_what_is_eaten_as_it_was_said():
    fast, bare = pair(WATERWORLD, {"n_evaders": 30, "n_poisons": 30, "radius": 0.03, "n_sensors": 3})
    ends = np.array([obs[agent][-2:] for obs, *_ in played(fast, bare, 0, 30) for agent in obs])
    assert set(map(tuple, ends)) >= {(0, 0), (1, 0), (0, 1)}


@pytest.mark.parametrize("nothing", [{"n_evaders": 0}, {"n_poisons": 0}, {"n_obstacles": 0, "obstacle_coord": []}])
def test_waterworld_without_one_kind_of_thing_fails_as_it_did(nothing):
    for env in pair(WATERWORLD, nothing):
        with pytest.raises(ValueError, match=r"at least one array|empty"):
            env.reset(seed=0)


def test_waterworld_draws_the_same():
    fast, bare = pair(WATERWORLD, {"n_pursuers": 3})
    pictures = []

    def watch(step):
        if step % 5 == 4:
            pictures.append(fast.render())
            assert np.array_equal(pictures[-1], bare.render())

    assert len(list(played(fast, bare, 3, 20, watch))) == 20
    assert not np.array_equal(pictures[0], pictures[1])


@pytest.mark.parametrize(("kwargs", "steps", "episodes"), FIELDS, ids=str)
def test_zombies_are_the_same_over_whole_episodes(kwargs, steps, episodes):
    fast, bare = pair(ZOMBIES, kwargs)
    assert type(fast.unwrapped).__name__ == "FastZombies"
    pictures, ends, deaths, kills = [], 0, 0, 0.0

    def watch(step):
        assert fast.unwrapped.screen is None  # and so the steps draw nothing
        if step % 60 in (0, 1, 59):
            pictures.append(fast.render())
            assert np.array_equal(pictures[-1], bare.render()), f"step {step}"
            assert same(fast.state(), bare.state())

    for _, rewards, terminated, _, _ in played(fast, bare, 5, steps, watch):
        ends += not fast.agents
        deaths += bool(fast.agents) and any(terminated.values())
        kills += sum(rewards.values())
    assert ends >= episodes
    assert kills > 0 or "max_cycles" in kwargs
    assert deaths > 0 or "spawn_rate" not in kwargs
    assert not np.array_equal(pictures[0], pictures[-1])


def test_zombies_saved_and_restored_go_on_by_themselves():
    fast, bare = pair(ZOMBIES, CROWDED | {"use_typemasks": True})
    assert len(list(played(fast, bare, 7, 60))) == 60
    snapshot = snapshots.dump(fast)
    again = snapshots.load(snapshot)
    assert type(again.unwrapped) is type(fast.unwrapped)
    assert again.unwrapped is not fast.unwrapped
    before = fast.render()
    rng, futures = np.random.default_rng(1), []
    for _ in range(40):
        actions = chosen(again, rng)
        futures.append((actions, again.step(actions), again.render()))
    assert len(again.agents) > 0
    assert np.array_equal(fast.render(), before)
    assert not np.array_equal(again.render(), before)
    for actions, brought, picture in futures:
        assert same(fast.step(actions), brought)
        assert same(bare.step(actions), brought)
        assert np.array_equal(fast.render(), picture)
    assert same(snapshots.load(snapshot).step(futures[0][0]), futures[0][1])


def test_zombies_without_a_render_mode_draw_nothing_as_before():
    fast = make_env(ZOMBIES, {"render_mode": None})[0]
    fast.reset(seed=0)
    with pytest.warns(UserWarning, match="without specifying any render mode"):
        assert fast.render() is None


def test_zombies_whose_window_was_closed_start_again():
    fast, bare = pair(ZOMBIES, {"max_cycles": 3})
    assert len(list(played(fast, bare, 0, 3))) == 3
    fast.close()
    assert same(fast.reset(seed=1), bare.reset(seed=1))
    assert np.array_equal(fast.render(), bare.render())


@pytest.mark.parametrize(
    ("world_id", "kwargs", "change"),
    [
        (WATERWORLD, {}, lambda world: delattr(world.env, "evader_speed")),
        (WATERWORLD, {}, lambda world: delattr(world, "env")),
        (ZOMBIES, {}, lambda world: delattr(world, "typemask_width")),
        (ZOMBIES, {}, lambda world: setattr(world, "render_mode", "human")),
        (ZOMBIES, {"vector_state": False}, lambda world: None),
    ],
    ids=["speed", "no simulation", "mask", "window", "pictures"],
)
def test_a_world_that_is_not_as_expected_stays_as_it_is(world_id, kwargs, change):
    env = import_world(world_id).parallel_env(**kwargs)
    change(env.unwrapped)
    attributes, simulation = dict(vars(env.unwrapped)), type(getattr(env.unwrapped, "env", None))
    assert accelerate(env) is env
    assert type(env.unwrapped).__name__ == "raw_env"
    assert type(getattr(env.unwrapped, "env", None)) is simulation
    assert vars(env.unwrapped) == attributes


@pytest.mark.parametrize("world_id", [WATERWORLD, ZOMBIES])
def test_worlds_of_another_version_stay_as_they_are(world_id, monkeypatch):
    monkeypatch.setattr(pettingzoo, "__version__", "1.26.0")
    world = make_env(world_id, {})[0].unwrapped
    assert not any(type(part).__name__.startswith("Fast") for part in (world, getattr(world, "env", None)))


def test_nothing_of_pettingzoos_own_is_changed():
    fast, bare = pair(ZOMBIES, CROWDED)
    assert len(list(played(fast, bare, 2, 30))) == 30
    source = import_world("butterfly/knights_archers_zombies").knights_archers_zombies
    from pettingzoo.butterfly.knights_archers_zombies.src import img, players, weapons, zombie

    assert type(bare.unwrapped) is source.raw_env
    assert bare.unwrapped.screen is not None
    assert all(module.get_image is img.get_image for module in (players, weapons, zombie))
