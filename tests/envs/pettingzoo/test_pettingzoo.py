"""PettingZoo's worlds as a `World`: the same, step for step, as the bare worlds; and what is wrong is said."""

import os
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from marl_tune.envs import default_config, make_world
from marl_tune.envs.pettingzoo import snapshots
from marl_tune.envs.pettingzoo.loading import EXTRA, make_env
from marl_tune.envs.pettingzoo.teams import TeamChanged
from marl_tune.envs.pettingzoo.unchecked import UncheckedParallelEnv
from marl_tune.envs.testing import check_world, sample_actions
from marl_tune.envs.world import StateUnavailable

ROOT = Path(__file__).resolve().parents[3]
PROBES = "pettingzoo_probes"
WORLDS = [
    ("mpe/simple_spread_v3", {}),
    (PROBES, {"probe": "mortals"}),
    (PROBES, {"probe": "late"}),
    ("mpe/simple_spread_v3", {"continuous_actions": True, "N": 2}),
    ("mpe/simple_tag_v3", {"max_cycles": 7}),
    ("mpe/simple_tag_v3", {"max_cycles": 7, "continuous_actions": True}),
    (PROBES, {"probe": "walkers"}),
    (PROBES, {"probe": "masked"}),
    (PROBES, {"probe": "camera"}),
    (PROBES, {"probe": "mixed"}),
    (PROBES, {"probe": "byarguments"}),
    (PROBES, {"probe": "unpicklable"}),
]


def world_of(world_id, kwargs, copies=1):
    return make_world(default_config("pettingzoo", id=world_id, kwargs=kwargs), copies)


def probe(name, copies=1, fixed_team=None, **kwargs):
    config = default_config("pettingzoo", id=PROBES, kwargs={"probe": name} | kwargs, fixed_team=fixed_team)
    return make_world(config, copies)


def bare(world_id, kwargs):
    """The world as PettingZoo's own users make it."""
    module = import_module(f"pettingzoo.{world_id.replace('/', '.')}" if "/" in world_id else world_id)
    drawing = {} if kwargs.get("probe") == "unpicklable" else {"render_mode": "rgb_array"}
    return module.parallel_env(**kwargs, **drawing)


def assert_sees(world, observations, copy, seen):
    for group in world.groups:
        for column, agent in enumerate(group.agents):
            if agent not in seen:
                continue
            expected, rows = seen[agent], observations[group.name]
            pairs = [(rows[k], expected[k]) for k in rows] if isinstance(rows, dict) else [(rows, expected)]
            assert all(np.array_equal(rows[copy, column], row) for rows, row in pairs)


def test_layers_that_only_check_are_taken_off():
    """Half of the time that PettingZoo's own parallel_env of simple_spread takes goes into them."""
    env, takes_turns = make_env("mpe/simple_spread_v3", {})
    assert not takes_turns
    assert type(env) is UncheckedParallelEnv
    assert env.aec_env is env.unwrapped
    clipped = make_env("mpe/simple_spread_v3", {"continuous_actions": True})[0].aec_env
    assert type(clipped).__name__ == "ClipOutOfBoundsWrapper"  # it changes actions: it stays


def test_a_world_whose_turn_is_another_agents_is_refused():
    env, takes_turns = make_env("mpe/simple_spread_v3", {})
    assert not takes_turns
    env.reset(seed=0)
    env.aec_env.agent_selection = "agent_1"
    with pytest.raises(RuntimeError, match="must step its agents in turn: 'agent_0' is next, not 'agent_1'"):
        env.step(dict.fromkeys(env.agents, 0))


@pytest.mark.parametrize(("world_id", "kwargs"), WORLDS)
def test_plays_as_the_bare_worlds_do(world_id, kwargs):
    copies, rng = 4, np.random.default_rng(0)
    world, envs = world_of(world_id, kwargs, copies), [bare(world_id, kwargs) for _ in range(4)]
    observations = world.reset([10, 11, 12, 13])
    for copy, env in enumerate(envs):
        assert_sees(world, observations, copy, env.reset(seed=10 + copy)[0])
    for _ in range(40):
        actions = sample_actions(world, observations, rng)
        step = world.step({name: array.copy() for name, array in actions.items()})
        ended = []
        for copy, env in enumerate(envs):
            acts = {a: actions[g.name][copy, i] for g in world.groups for i, a in enumerate(g.agents)}
            seen, rewards, terminated, _, _ = env.step({agent: acts[agent] for agent in env.agents})
            assert_sees(world, step.observations, copy, seen)
            for group in world.groups:
                assert step.rewards[group.name][copy].tolist() == [np.float32(rewards.get(a, 0)) for a in group.agents]
            assert step.terminated[copy] == (not env.agents and all(terminated.values()))
            assert step.truncated[copy] == (not env.agents and not all(terminated.values()))
            if not env.agents:
                ended.append(copy)
        assert np.flatnonzero(step.terminated | step.truncated).tolist() == ended
        observations = step.observations
        if ended:
            last, observations = observations, world.reset(copies=np.array(ended))
            for copy in ended:
                assert_sees(world, observations, copy, envs[copy].reset()[0])
            for group in world.groups:
                for copy in set(range(copies)) - set(ended):
                    rows = [tree[group.name] for tree in (last, observations)]
                    rows = [tree["observation"] if isinstance(tree, dict) else tree for tree in rows]
                    assert np.array_equal(rows[0][copy], rows[1][copy])


@pytest.mark.parametrize(("world_id", "kwargs"), WORLDS)
def test_keeps_the_contract(world_id, kwargs):
    check_world(lambda copies: world_of(world_id, kwargs, copies), steps=30)


def test_agents_of_one_name_and_equal_spaces_are_a_group():
    tag = world_of("mpe/simple_tag_v3", {})
    assert [(group.name, group.agents) for group in tag.groups] == [
        ("adversary", ("adversary_0", "adversary_1", "adversary_2")),
        ("agent", ("agent_0",)),
    ]
    mixed = probe("mixed")
    assert [(group.name, group.agents) for group in mixed.groups] == [
        ("guard", ("guard_0", "guard_1")),
        ("scout", ("scout_0", "scout_1")),
        ("guard-2", ("guard_2",)),
        ("boss", ("boss",)),
    ]


def test_pixels_stay_uint8_and_worlds_that_observe_their_picture_draw_it():
    world = probe("camera", 2)
    first = world.reset([0, 1])["walker"]
    assert first.dtype == np.uint8
    assert first.shape == (2, 3, 6, 5, 3)
    assert not np.array_equal(world.step({"walker": np.zeros((2, 3), int)}).observations["walker"], first)
    assert world.render(1).tolist() == np.full((5, 7, 3), 1).tolist()


def test_metrics_are_the_numbers_that_all_agents_are_told():
    world = probe("walkers", 3)
    world.reset([0, 1, 2])
    assert world.episode_metrics(np.arange(3)) == {}
    rewards = world.step({"walker": np.ones((3, 3), int)}).rewards["walker"]
    metrics = world.episode_metrics(np.array([2, 0]))
    assert list(metrics) == ["time", "place"]
    assert metrics["time"].tolist() == [1.0, 1.0]
    assert metrics["place"] == pytest.approx(rewards.mean(axis=1)[[2, 0]])


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("leaver", "agent 'walker_1' is not there at step 2"),
        ("joiner", "agent 'guest' joined, which is not one of possible_agents at step 2"),
        ("uneven", "agent 'walker_2' is done while 'walker_0' goes on at step 2"),
    ],
)
def test_a_team_that_changes_is_refused_at_that_step(name, event):
    world = probe(name, fixed_team=True)
    world.reset([4])
    world.step({"walker": np.zeros((1, 3), int)})
    with pytest.raises(TeamChanged, match=f"whose agents all stay.*fixed_team=true.*'{PROBES}': {event}"):
        world.step({"walker": np.zeros((1, 3), int)})


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("leaver", "are terminated or truncated before they are gone.*agent 'walker_1' is not there at step 2"),
        ("joiner", "lists all its agents in possible_agents.*agent 'guest' joined at step 2"),
        ("returner", "do not come back in the same episode.*agent 'walker_0' did at step 2"),
    ],
)
def test_a_changing_team_keeps_the_rules_of_the_parallel_api(name, event):
    world = probe(name)
    world.reset([4])
    world.step({"walker": np.zeros((1, 3), int)})
    with pytest.raises(TeamChanged, match=f"env.id must name a world (whose|that).*{event}"):
        world.step({"walker": np.zeros((1, 3), int)})


BAD = [
    ("mpe/simple_spred_v3", {}, "did you mean mpe/simple_spread_v3?"),
    ("mpe/simple_spread_v2", {}, "did you mean mpe/simple_spread_v3?"),
    ("mpe/nothing", {}, "pettingzoo.mpe has simple_adversary_v3, simple_crypto_v3"),
    ("mpi/simple_spread_v3", {}, "the families are butterfly, classic, mpe and sisl"),
    ("my_package.my_env", {}, "it is neither on the Python path nor in the working directory"),
    ("mpe simple_spread", {}, "env.id must be like mpe/simple_spread_v3"),
    ("", {}, "env.id must be like mpe/simple_spread_v3"),
    ("json", {}, "env.id must name a module with parallel_env(**kwargs) or env(**kwargs), got 'json'"),
    ("mpe/simple_spread_v3", {"max_cycle": 3}, "env.kwargs must hold arguments that mpe/simple_spread_v3 takes"),
    ("mpe/simple_spread_v3", {"local_ratio": 2}, "local_ratio is a proportion"),
    (PROBES, {"probe": "unseen"}, "'walker_0' observes Discrete(3)"),
    (PROBES, {"probe": "spoken"}, "'walker_0' acts by Text"),
    (PROBES, {"probe": "unlisted"}, "lists its agents in possible_agents"),
]


@pytest.mark.parametrize(("world_id", "kwargs", "message"), BAD, ids=[f"{bad[0]}-{bad[1]}" for bad in BAD])
def test_a_world_that_cannot_be_made_is_refused(world_id, kwargs, message):
    with pytest.raises(ValueError, match=r"env\.(id|kwargs) must ") as refused:
        world_of(world_id, kwargs)
    assert message in str(refused.value)


def test_a_module_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "thirsty.py").write_text("import water")
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(ValueError, match=r"env\.id=thirsty needs the package 'water', which is not installed$"):
        world_of("thirsty", {})
    with pytest.raises(ValueError, match=r"env\.id=broken cannot be imported: ZeroDivisionError"):
        world_of("broken", {})
    monkeypatch.setitem(sys.modules, "pygame", None)
    for name in [name for name in sys.modules if name.startswith("pettingzoo.sisl.pursuit")]:
        monkeypatch.delitem(sys.modules, name)
    cure = r'pygame.*not installed: pip install "marl-tune\[envs\]"$'
    with pytest.raises(ValueError, match=cure):
        world_of("sisl/pursuit_v4", {})


def test_extra_packages_are_those_of_the_project():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["envs"]
    assert {name.removesuffix("-ce").partition("<")[0] for name in extra} == set(EXTRA)


def test_wrong_settings_and_actions_are_refused():
    with pytest.raises(ValueError, match=r"env\.workers must be at least 0, got -1"):
        default_config("pettingzoo", workers=-1)
    world = probe("walkers", 2)
    world.reset()
    with pytest.raises(ValueError, match=r"actions of walker must have the shape \(2, 3\), got \(2, 2\)"):
        world.step({"walker": np.zeros((2, 2), int)})
    with pytest.raises(ValueError, match="state of another world: 1 copies, here 2"):
        world.set_state(probe("walkers", 1).get_state())


def test_a_world_that_does_not_pickle_says_so_and_goes_on():
    world = probe("unpicklable", 2)
    world.reset([0, 1])
    with pytest.raises(StateUnavailable, match="lambda"):
        world.get_state()
    world.step({"walker": np.zeros((2, 3), int)})


def test_snapshots_hold_pictures_and_refuse_what_would_come_back_changed():
    import pygame  # only here, so that the worlds above are the first to import it

    clear, keyed = pygame.Surface((4, 3), pygame.SRCALPHA), pygame.Surface((5, 2))
    clear.fill((1, 2, 3, 4))
    keyed.fill((9, 8, 7), (1, 0, 2, 1))
    keyed.set_colorkey((9, 8, 7))
    again = snapshots.load(snapshots.dump({"clear": clear, "keyed": keyed, "same": clear}))
    assert again["same"] is again["clear"]
    assert again["keyed"].get_colorkey() == keyed.get_colorkey()
    for name, surface in (("clear", clear), ("keyed", keyed)):
        assert pygame.image.tobytes(again[name], "RGBA") == pygame.image.tobytes(surface, "RGBA")
    for changed in (clear.subsurface((0, 0, 2, 2)), pygame.Surface((2, 2), depth=8)):
        with pytest.raises(StateUnavailable, match="Surface"):
            snapshots.dump([changed])


def test_physics_that_would_move_on_differently_is_no_state(monkeypatch):
    library = ModuleType("pymunk.space")
    library.Space = type("Space", (), {"__module__": "pymunk.space"})  # pickles, as pymunk's own does
    monkeypatch.setitem(sys.modules, "pymunk.space", library)
    with pytest.raises(StateUnavailable, match="contacts"):
        snapshots.dump([library.Space()])


def test_a_world_of_ours_can_come_back_as_a_pettingzoo_world():
    rules = {"grid_size": [6, 7], "n_agents": 3, "max_steps": 9}
    here = make_world(default_config("ant_colony", **rules), 2)
    there = world_of("marl_tune.envs.ant_colony", rules, 2)
    rng, observations = np.random.default_rng(0), here.reset([3, 4])
    assert np.array_equal(observations["ants"], there.reset([3, 4])["ant"])
    for _ in range(9):
        actions = sample_actions(here, observations, rng)
        ours, theirs = here.step(actions), there.step({"ant": actions["ants"]})
        assert np.array_equal(ours.observations["ants"], theirs.observations["ant"])
        assert np.array_equal(ours.rewards["ants"], theirs.rewards["ant"])
    assert theirs.truncated.all()
    ours, theirs = (world.episode_metrics(np.arange(2)) for world in (here, there))
    assert {name: values.tolist() for name, values in ours.items()} == {
        name: values.tolist() for name, values in theirs.items()
    }


def test_closing_one_world_leaves_the_others_their_pygame():
    one, other = world_of("mpe/simple_world_comm_v3", {}), world_of("mpe/simple_world_comm_v3", {})
    other.reset([0])
    picture = other.render()
    one.close()
    one.close()
    assert np.array_equal(other.render(), picture)


def test_the_process_stays_silent_and_can_be_ended():
    code = (
        "import os; from marl_tune.envs import default_config, make_world;"
        "make_world(default_config('pettingzoo')).reset([0]); os.kill(os.getpid(), 15)"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SDL", "PYGAME"))}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == done.stderr == b""
