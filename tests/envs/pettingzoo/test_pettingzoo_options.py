"""The worlds of PettingZoo that have an option of their own: they compose, keep the contract, are learned from."""

import dataclasses
import sys
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from marl_tune.__main__ import main
from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.config.compose import compose
from marl_tune.envs import default_config, make_world
from marl_tune.envs.testing import check_world, play
from marl_tune.evaluation import play as evaluation

CONF = Path(__file__).resolve().parents[3] / "conf"
SHORT = {
    "sisl/waterworld_v4": {"n_sensors": 5, "max_cycles": 9},
    "sisl/multiwalker_v9": {"max_cycles": 9},
    "sisl/pursuit_v4": {"n_evaders": 3, "n_pursuers": 3, "max_cycles": 9},
    "classic/chess_v6": {},
    "classic/go_v5": {"board_size": 5},
    "classic/connect_four_v3": {},
    "classic/tictactoe_v3": {},
    "butterfly/knights_archers_zombies_v10": {"max_cycles": 9},
    "butterfly/cooperative_pong_v5": {"max_cycles": 9},
    "butterfly/pistonball_v6": {"n_pistons": 3, "max_cycles": 9},
    "mpe/simple_spread_v3": {"max_cycles": 9},
    "mpe/simple_adversary_v3": {"max_cycles": 9},
    "mpe/simple_tag_v3": {"max_cycles": 9},
}  # option -> arguments with which its episodes are short, where there are any
NEEDS = {"waterworld": "pymunk", "multiwalker": "Box2D", "chess": "chess", "pistonball": "pymunk"}
STEPS = {"classic/go_v5": 150, "classic/connect_four_v3": 45, "classic/chess_v6": 400}
# steps within which the first games are over, where more than 20


def slow_but(fast):
    """The options as parameters, those marked as slow that are not among the fast ones."""
    return [pytest.param(option, marks=[] if option in fast else pytest.mark.slow) for option in SHORT]


@cache
def composed(*words):
    """The settings of the world that the command line's words ask for."""
    return compose(list(words))[0].env


def config(option, *words, **kwargs):
    """The option's own settings, with words and with further arguments of the world."""
    env = composed(f"env={option}", *words)
    return dataclasses.replace(env, kwargs=env.kwargs | kwargs)


def play_of(option):
    """What makes copies of the option's world with short episodes."""
    return partial(make_world, config(option, **SHORT[option]))


def needed(option):
    """Skips the test where what the world needs is not installed."""
    stem = option.rpartition("/")[2].rpartition("_")[0]
    pytest.importorskip("pygame")
    pytest.importorskip(NEEDS.get(stem, "numpy"))
    if any(config(option).preprocess.used()):
        pytest.importorskip("supersuit")


def test_the_options_are_those_tested_here():
    folder = CONF / "env"
    found = {path.relative_to(folder).with_suffix("").as_posix(): path.read_text() for path in folder.rglob("*.yaml")}
    assert {name for name, text in found.items() if "- /env/pettingzoo@_here_" in text} == set(SHORT)


@pytest.mark.parametrize("option", SHORT)
def test_an_option_is_named_by_its_world_and_is_pettingzoo_with_other_values(option):
    env, values = config(option), yaml.safe_load((CONF / "env" / f"{option}.yaml").read_text())
    assert (env.name, env.id) == ("pettingzoo", option)
    off = default_config("pettingzoo")
    preprocess = dataclasses.replace(off.preprocess, **values.get("preprocess", {}))
    assert env == dataclasses.replace(off, id=option, kwargs=values.get("kwargs", {}), preprocess=preprocess)


def test_a_world_can_be_typed_generically_too():
    words = ["env=pettingzoo", "env.id=butterfly/pistonball_v6", "+env.kwargs.n_pistons=4", "env.preprocess.grey=true"]
    env = composed(*words, "env.preprocess.resize=[64,64]", "env.preprocess.frame_stack=4")
    assert env.preprocess == config("butterfly/pistonball_v6").preprocess
    assert env.kwargs == {"n_pistons": 4}
    assert composed("env=butterfly/pistonball_v6", "env.kwargs.n_pistons=4").kwargs["n_pistons"] == 4


@pytest.mark.parametrize("option", SHORT)
def test_each_world_plays_as_it_comes(option):
    """A few steps of its unshortened settings; every array is checked."""
    needed(option)
    with make_world(config(option), 2) as world:
        records = play(world, 8, seed=0)
        for group in world.groups:
            rewards = np.stack([record["step"]["rewards"][group.name] for record in records])
            assert rewards.shape == (8, 2, len(group.agents))


@pytest.mark.parametrize("option", slow_but(["sisl/waterworld_v4", "sisl/pursuit_v4"]))
def test_each_world_keeps_the_contract(option):
    needed(option)
    check_world(play_of(option), steps=STEPS.get(option, 20))


def test_pictures_are_small_grey_and_stacked():
    needed("butterfly/pistonball_v6")
    with play_of("butterfly/pistonball_v6")(1) as world:
        (group,) = world.groups
        pictures = world.reset([0])[group.name]
        assert (pictures.shape, pictures.dtype) == ((1, 3, 64, 64, 4), np.uint8)
        assert not pictures[..., :3].any()
        assert pictures[..., 3].any()


# Learning.

MODULES = {
    "sisl/pursuit_v4": "mlp",  # vectors
    "butterfly/pistonball_v6": "cnn",  # pictures
    "classic/connect_four_v3": "mlp",  # by turns, with a mask
    "butterfly/knights_archers_zombies_v10": "gru",  # agents die
}  # the others: cnn, which lets vectors pass


def train(tiny, env, module):
    """Two tiny iterations: the modules' losses after them."""
    batch = ["algorithm.train_batch_size=80", "algorithm.minibatch_size=10", "cluster.num_envs_per_env_runner=2"]
    algorithm = algorithm_config(dataclasses.replace(tiny(f"module={module}", *batch), env=env)).build_algo()
    results = [algorithm.train() for _ in range(2)]
    algorithm.stop()
    losses = {name: loss for name, loss in results[-1]["learners"].items() if name != "__all_modules__"}
    assert np.isfinite([loss["total_loss"] for loss in losses.values()]).all()
    return set(losses)


@pytest.mark.parametrize("option", slow_but(["sisl/pursuit_v4", "butterfly/pistonball_v6", "classic/connect_four_v3"]))
@pytest.mark.usefixtures("ray_session")
def test_each_world_is_learned_from(tiny, option):
    needed(option)
    modules = train(tiny, config(option, **SHORT[option]), MODULES.get(option, "cnn"))
    different = {"mpe/simple_tag_v3", "mpe/simple_adversary_v3"}  # whose groups have spaces of their own
    assert modules == ({"adversary", "agent"} if option in different else {"shared"})


@pytest.mark.usefixtures("ray_session")
def test_one_module_serves_all_agents_once_they_are_padded(tiny):
    pytest.importorskip("supersuit")
    words = ["env.preprocess.pad_observations=true", "env.preprocess.pad_actions=true"]
    env = config("mpe/simple_tag_v3", *words, "env.preprocess.agent_indicator=true", max_cycles=9)
    assert train(tiny, env, "mlp") == {"shared"}


def test_an_evaluation_plays_on_where_uncounted_episodes_end_again():
    """Walkers play 3 to 8 steps: a copy that was done early is done again before the last one is."""
    env = default_config("pettingzoo", id="pettingzoo_probes", kwargs={"probe": "walkers"}, fixed_team=True)
    with make_world(env, 12) as world:
        still = SimpleNamespace(act=lambda observations: {"walker": np.zeros((12, 3), np.int64)})
        lengths = evaluation.play(world, still, range(12)).lengths
    assert lengths.min() == 3
    assert lengths.max() > 6


# What is missing.


def fails_with(capsys, *words):
    """What the command line says when it refuses the words."""
    assert main(list(words)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def forget(monkeypatch, prefix):
    for name in [name for name in sys.modules if name.startswith(prefix)]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("option", "module", "package"),
    [
        ("classic/chess_v6", "pettingzoo.classic.chess", "chess"),
        ("sisl/multiwalker_v9", "pettingzoo.sisl.multiwalker", "Box2D"),
        ("sisl/waterworld_v4", "pettingzoo.sisl.waterworld", "pymunk"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_command(monkeypatch, capsys, option, module, package):
    forget(monkeypatch, module)
    monkeypatch.setitem(sys.modules, package, None)
    said = fails_with(capsys, f"env={option}", "+env.kwargs.unheard=1")
    cure = f"needs the package '{package}', which is not installed: pip install \"marl-tune[envs]\"\n"
    assert said == f"error: env.id={option} {cure}"


@pytest.mark.parametrize(
    ("world_id", "near"),
    [
        ("sisl/pursuit_v3", "sisl/pursuit_v4"),
        ("sisl/waterworld_v3", "sisl/waterworld_v4"),
        ("classic/chess_v5", "classic/chess_v6"),
        ("butterfly/pistonball_v5", "butterfly/pistonball_v6"),
        ("butterfly/knights_archers_zombies_v9", "butterfly/knights_archers_zombies_v10"),
    ],
)
def test_a_version_that_is_not_there_is_answered_by_the_one_that_is(capsys, world_id, near):
    assert f"did you mean {near}?" in fails_with(capsys, "env=pettingzoo", f"env.id={world_id}")


def test_a_pymunk_that_is_too_new_is_answered_by_the_command_for_an_older_one(monkeypatch, capsys):
    pymunk = pytest.importorskip("pymunk")
    monkeypatch.delattr(pymunk.Space, "add_collision_handler")
    monkeypatch.setattr(pymunk, "version", "7.1.0")
    said = fails_with(capsys, "env=sisl/waterworld_v4", "env.kwargs.max_cycles=7")
    assert said == 'error: env.id=sisl/waterworld_v4 needs pymunk below 7, got 7.1.0: pip install "pymunk<7"\n'


def test_preprocessing_that_does_not_suit_is_one_message(capsys):
    said = fails_with(capsys, "env=sisl/pursuit_v4", "env.preprocess.grey=true")
    assert said.startswith("error: env.preprocess.grey must be false where observations are not pictures")


# Experiments.


def test_each_world_has_an_experiment():
    chosen = {}
    for path in (CONF / "experiment").glob("*.yaml"):
        experiment = yaml.safe_load(path.read_text())
        overrides = [entry for entry in experiment["defaults"] if isinstance(entry, dict)]
        options = {key: name for entry in overrides for key, name in entry.items()}
        if "override /env" not in options:  # built upon another experiment
            continue
        chosen[experiment.get("env", {}).get("id", options["override /env"])] = options
    assert set(SHORT) <= set(chosen)
    for option in SHORT:
        pictures = config(option).preprocess.resize is not None
        assert not pictures or chosen[option]["override /module"] == "cnn"
