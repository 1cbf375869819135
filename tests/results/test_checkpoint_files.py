"""What a checkpoint holds: plain data that names nothing of ours; and what is said of one that cannot be read."""

import dataclasses
import importlib
import io
import pickle
import pickletools
import re
import signal
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from marl_tune.config.errors import ConfigError
from marl_tune.envs import default_config, make_world
from marl_tune.envs.pettingzoo import snapshots
from marl_tune.envs.testing import sample_actions
from marl_tune.results.callback import SweepCallback
from marl_tune.sweep import session
from marl_tune.sweep.in_process_trial import InProcess
from marl_tune.sweep.run import run

ALONE = ("search=none", "search.num_samples=1")
OURS = re.compile(r"(marl_tune|envs|modules)(\.\w+)*")
ALL_ON = {"frame_stack": 2, "pad_observations": True, "agent_indicator": True, "normalize_observations": False}
TURNS = {"id": "classic/tictactoe_v3", "preprocess": ALL_ON | {"pad_observations": False, "agent_indicator": False}}
WORLDS = {
    "parallel": {"id": "mpe/simple_spread_v3", "kwargs": {"max_cycles": 5}, "preprocess": ALL_ON},
    "changing": {"id": "pettingzoo_probes", "kwargs": {"probe": "mortals"}},
    "turns": TURNS,
    "zombies": {"id": "butterfly/knights_archers_zombies_v10", "kwargs": {"max_cycles": 6}},
    "pictures": {
        "id": "butterfly/cooperative_pong_v5",
        "kwargs": {"max_cycles": 6},
        "preprocess": {"grey": True, "resize": [20, 30]},
    },
}


def globals_of(pickled: bytes) -> set[str]:
    """Modules of the classes and functions that a pickle names, those in pickles, zips and compressed parts of it too.

    Strings of the form of such a name count as one.
    """
    found, strings, memo = set(), [], {}
    for opcode, value, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            found.add(value.split(" ")[0])
        elif opcode.name == "STACK_GLOBAL":
            found.add(strings[-2])
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = strings[-1] if strings else None
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            strings.append(memo.get(value))
        elif isinstance(value, str):
            strings.append(value)
            found |= {value} if "." in value and OURS.match(value) else set()
        elif isinstance(value, bytes):
            found |= globals_of_part(value)
    return found


def globals_of_part(part: bytes) -> set[str]:
    if part[:2] == b"PK":
        return globals_of_file(io.BytesIO(part))
    try:
        return globals_of(zlib.decompress(part))
    except zlib.error:
        return set()


def globals_of_file(file) -> set[str]:
    with zipfile.ZipFile(file) as parts:
        (name,) = (name for name in parts.namelist() if name.endswith("/data.pkl"))
        return globals_of(parts.read(name))


def ours(names: set[str]) -> set[str]:
    return {name for name in names if OURS.fullmatch(name)}


def pettingzoo(settings):
    config = default_config("pettingzoo", **{k: v for k, v in settings.items() if k != "preprocess"})
    return dataclasses.replace(
        config, preprocess=dataclasses.replace(config.preprocess, **settings.get("preprocess", {}))
    )


@pytest.fixture
def lone(tiny):
    """Makes trials of worlds in this process: `lone(config)`; stopped after the test."""
    made = []

    def make(env, *words):
        made.append(InProcess(dataclasses.replace(tiny(*ALONE, *words), env=env), "test_00000"))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_the_scan_finds_what_is_hidden():
    hidden = zlib.compress(pickle.dumps([default_config("bio_grid"), ConfigError("x")], pickle.HIGHEST_PROTOCOL))
    file = io.BytesIO()
    torch.save({"a": [np.zeros(2), hidden]}, file, pickle_protocol=pickle.HIGHEST_PROTOCOL)
    file.seek(0)
    assert ours(globals_of_file(file)) == {"marl_tune.envs.bio_grid.world", "marl_tune.config.errors"}


@pytest.mark.parametrize(("world", "module"), [("parallel", "mlp"), ("turns", "gru"), ("changing", "mlp")])
def test_the_checkpoint_of_a_trial_names_nothing_of_ours(lone, tmp_path, world, module):
    one = lone(pettingzoo(WORLDS[world]), f"module={module}")
    one.train()
    one.train()
    one.save(str(tmp_path))
    training = torch.load(tmp_path / "training.pt", weights_only=False)
    (sampling,) = training["rollouts"]
    assert len(sampling["recent"]) > 0
    assert sampling["rollout"]["world"]["copies"]
    if world == "turns":
        assert any(group["open"] for group in sampling["rollout"]["decisions"].values())
    for name in ("training.pt", "policy.pt"):
        assert not ours(globals_of_file(tmp_path / name))


@pytest.mark.parametrize("name", WORLDS)
def test_snapshots_of_pettingzoos_worlds_name_nothing_of_ours(name):
    world, rng = make_world(pettingzoo(WORLDS[name]), 1), np.random.default_rng(0)
    observations = world.reset([0])
    for _ in range(2):
        observations = world.step(sample_actions(world, observations, rng)).observations
    (snapshot,) = world.get_state()["copies"]
    assert not ours(globals_of_part(snapshot))
    assert type(snapshots.load(snapshot)) is type(world.teams[0])


def test_the_state_of_a_vmas_scenario_names_nothing_of_ours():
    world = make_world(default_config("vmas", scenario="balance", kwargs={"n_agents": 2}), 2)
    world.reset([0, 1])
    assert not ours(globals_of_part(world.get_state()["simulation"]))


def test_names_in_snapshots_stand_for_what_there_is():
    for name, place in snapshots.OURS.items():
        module, _, part = place.partition(":")
        meant = getattr(importlib.import_module(module), part)
        assert snapshots.part_named(name) is meant


def lose_a_class(folder: Path) -> None:
    torch.save([Gone()], folder / "training.pt")
    data = (folder / "training.pt").read_bytes()
    (folder / "training.pt").write_bytes(data.replace(b"Gone", b"Lost"))


def change_a_snapshot(folder: Path) -> None:
    edit(folder, lambda training: training["rollouts"][0]["rollout"]["world"].update(copies=[unknown()] * 5))


def drop_a_counter(folder: Path) -> None:
    edit(folder, lambda training: training["counters"].pop("env_steps"))


def keep_episodes_as_objects(folder: Path) -> None:
    edit(folder, lambda training: training["rollouts"][0].update(recent=[object()]))


def break_the_record(folder: Path) -> None:
    (folder / "state.json").write_text("{}")


class Gone:
    """A class that another version had."""


def unknown() -> bytes:
    return zlib.compress(b"\x80\x05\x8c\x0afixed_crewQ.")


def edit(folder: Path, change) -> None:
    training = torch.load(folder / "training.pt", weights_only=False)
    change(training)
    torch.save(training, folder / "training.pt")


class Stop(SweepCallback):
    """Interrupts the run in its second iteration."""

    def on_trial_result(self, iteration, trials, trial, result, **info):
        if result["training_iteration"] == 2:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interrupted(tiny, tmp_path, monkeypatch):
    """The folder of a run in this process that was interrupted, and its newest checkpoint."""
    sweep = dataclasses.replace(tiny(*ALONE, "stop.iterations=4"), env=pettingzoo(WORLDS["parallel"]))
    make = session.make_callbacks
    with monkeypatch.context() as patch:
        patch.setattr(session, "make_callbacks", lambda *args: [*make(*args), Stop()])
        assert run(sweep, ["test"]) == 130
    (folder,) = [path.parent for path in tmp_path.rglob("manifest.json")]
    monkeypatch.setattr(session, "make_callbacks", lambda *args: [*make(*args), SweepCallback()])
    return folder, max(folder.glob("tune/*/checkpoint_*"))


CHANGES = [lose_a_class, change_a_snapshot, drop_a_counter, keep_episodes_as_objects, break_the_record]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_lone_trial_is_not_resumed_from_a_checkpoint_of_another_version(interrupted, tiny, change):
    folder, checkpoint = interrupted
    change(checkpoint)
    with pytest.raises(ConfigError) as raised:
        run(tiny(f"resume={folder}"), ["test"])
    message = str(raised.value)
    assert f"the checkpoint '{checkpoint}' cannot be read: it was written by another version" in message
    assert "\n" not in message


def test_a_checkpoint_of_this_version_is_resumed(interrupted, tiny):
    folder, _ = interrupted
    assert run(tiny(f"resume={folder}"), ["test"]) == 0
