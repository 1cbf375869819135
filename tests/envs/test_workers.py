"""Worlds whose copies run in worker processes: the same play, faults that are told, and nothing left behind."""

import gc
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from marl_tune.envs import default_config, make_world
from marl_tune.envs.ant_colony import AntColony, AntColonyConfig
from marl_tune.envs.pettingzoo import Pettingzoo
from marl_tune.envs.testing import check_world, play
from marl_tune.envs.workers import world as workers
from marl_tune.envs.workers.world import WorkerError, WorkerWorld
from marl_tune.envs.world import StateUnavailable

ROOT = Path(__file__).resolve().parents[2]
COLONY = AntColonyConfig("ant_colony", [6, 7], 4, 3, 2, None, 0.2, 0.9, 12)


def probe(name, copies=2, processes=2, **kwargs):
    config = default_config("pettingzoo", id="pettingzoo_probes", kwargs={"probe": name} | kwargs)
    return WorkerWorld(partial(Pettingzoo, config), copies, processes)


def still(copies=2):
    return {"walker": np.zeros((copies, 3), np.int64)}


def processes_of(world):
    return [psutil.Process(process.pid) for process in world.processes]


def assert_gone(processes, seconds=10.0):
    """All have ended: those of our own are waited for, those of others may be zombies of a dead parent for a while."""
    deadline = time.monotonic() + seconds
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
        assert time.monotonic() < deadline, f"still there: {processes}"
        time.sleep(0.02)


def test_keeps_the_contract():
    def make(copies):
        return AntColony(COLONY) if copies == 1 else WorkerWorld(partial(AntColony, COLONY), copies, 2)

    check_world(make, steps=30)


@pytest.mark.parametrize(
    ("config", "processes"),
    [
        (default_config("pettingzoo", id="mpe/simple_tag_v3", kwargs={"max_cycles": 7}), 2),
        (default_config("pettingzoo", id="pettingzoo_probes", kwargs={"probe": "masked"}), 3),
        (default_config("pettingzoo", id="pettingzoo_probes", kwargs={"probe": "mixed"}), 2),
        (default_config("pettingzoo", id="pettingzoo_probes", kwargs={"probe": "camera"}), 1),
    ],
    ids=lambda value: value if isinstance(value, int) else value.kwargs.get("probe", value.id),
)
def test_plays_as_in_one_process(config, processes):
    """Copies of these probes end at different times, so that single ones are reset."""
    here = Pettingzoo(config, 5)
    with WorkerWorld(partial(Pettingzoo, config), 5, processes) as there:
        assert there.groups == here.groups
        for ours, theirs in zip(play(here, 20, 3), play(there, 20, 3), strict=True):
            np.testing.assert_equal(theirs, ours)
        assert np.array_equal(there.render(4), here.render(4))
        copies = np.array([4, 0, 3])
        np.testing.assert_equal(there.episode_metrics(copies), here.episode_metrics(copies))


def test_only_configs_that_ask_for_workers_get_them():
    config = default_config("pettingzoo", workers=3)
    assert isinstance(make_world(config, 1), Pettingzoo)
    assert isinstance(make_world(default_config("pettingzoo"), 4), Pettingzoo)
    with make_world(config, 2) as world:  # an evaluation may have fewer copies than the training has workers
        assert isinstance(world, WorkerWorld)
        assert len(processes_of(world)) == 1  # and this one
    with pytest.raises(ValueError, match=r"env\.workers must be from 1 to the 2 copies of the world, got 3"):
        probe("walkers", 2, 3)


def test_a_worker_imports_what_its_world_needs():
    with probe("nosy") as world:
        world.reset([0, 1])
        world.step(still())
        loaded = world.episode_metrics(np.array([1]))  # copy 0 is in this process
        assert loaded["pettingzoo_probes"].all()
        assert loaded["numpy"].all()
        assert not any(loaded[name].any() for name in ("torch", "ray", "marl_tune"))


def test_a_worker_is_out_of_reach_of_a_terminals_interrupt_from_its_first_moment():
    with probe("walkers") as world:
        assert all(os.getpgid(process.pid) == process.pid for process in processes_of(world))


def test_wrong_calls_do_no_harm():
    with probe("walkers") as world:
        world.reset([0, 1])
        with pytest.raises(ValueError, match="actions of walker must have the shape"):
            world.step({"walker": np.zeros((2, 1), int)})
        with pytest.raises(ValueError, match="one seed per copy"):
            world.reset([1], np.array([0, 1]))
        with pytest.raises(ValueError, match="state of another world: 1 workers, here 2"):
            world.set_state({"shares": [{}]})
        world.step(still())


def test_a_state_that_cannot_be_had_does_no_harm():
    with probe("unpicklable") as world:
        world.reset([0, 1])
        with pytest.raises(StateUnavailable, match="lambda"):
            world.get_state()
        world.step(still())


# --- what goes wrong in a worker ---


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", r"copies 1 to 1 failed\n\nTraceback[^$]*in step[^$]*ZeroDivisionError: the probe gave up"),
        ("die", "copies 1 to 1 was killed by SIGKILL"),
        ("exit", "copies 1 to 1 ended with exit code 3"),
    ],
)
def test_a_failure_in_a_worker_is_told_and_ends_all(how, message):
    world = probe("failing", how=how, seed=1)
    there = processes_of(world)
    world.reset([0, 1])
    world.step(still())
    with pytest.raises(WorkerError, match=message):
        world.step(still())
    assert_gone(there, 0)
    with pytest.raises(RuntimeError, match="the world is closed"):
        world.step(still())


def test_a_failure_in_the_own_share_ends_the_workers():
    world = probe("failing", how="raise", seed=0)
    there = processes_of(world)
    world.reset([0, 1])
    world.step(still())
    with pytest.raises(ZeroDivisionError, match="the probe gave up"):
        world.step(still())
    assert_gone(there, 0)
    with pytest.raises(RuntimeError, match="the world is closed"):
        world.reset()


def test_a_world_that_cannot_be_made_leaves_nothing():
    before = set(psutil.Process().children())
    with pytest.raises(ValueError, match=r"^env\.kwargs must hold arguments"):  # as the world itself says it
        probe("walkers", unknown=1)
    assert set(psutil.Process().children()) <= before


def test_a_worker_that_was_killed_between_two_steps_is_noticed():
    world = probe("walkers")
    there = processes_of(world)
    world.reset()
    there[0].kill()
    with pytest.raises(WorkerError, match="copies 1 to 1 was killed by SIGKILL"):
        world.step(still())
    assert_gone(there, 0)


def test_an_interrupted_step_ends_the_workers(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 0.2)
    world = probe("failing", how="sleep", seed=1)
    there = processes_of(world)
    world.reset([0, 1])
    world.step(still())
    old = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            world.step(still())
    finally:
        signal.signal(signal.SIGALRM, old)
    assert_gone(there, 0)


# --- how a world ends ---


def test_close_and_garbage_collection_end_the_workers():
    world = probe("walkers")
    there = processes_of(world)
    world.close()
    world.close()
    assert_gone(there, 0)
    world = probe("walkers")
    there = processes_of(world)
    del world
    gc.collect()
    assert_gone(there, 0)


SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in its background without one
from functools import partial
from marl_tune.envs.ant_colony import AntColony, AntColonyConfig
from marl_tune.envs.workers.world import WorkerWorld

world = WorkerWorld(partial(AntColony, AntColonyConfig("ant_colony", [6, 7], 4, 3, 2, None, 0.2, 0.9, 12)), 3, 3)
world.reset()  # the workers have all they need
try:
    print(*(process.pid for process in world.processes), flush=True)
    time.sleep(float(sys.argv[1]))
except KeyboardInterrupt:
    world.reset()
    print("interrupted", flush=True)
"""


def owner(seconds):
    """Another process that makes a world and sleeps, and that world's workers."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, str(seconds)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    return process, [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]


def test_workers_end_with_an_owner_that_is_killed():
    process, there = owner(60)
    assert len(there) == 2
    for worker in there:  # what they share has no name under which it could stay behind
        shared = {memory.path for memory in worker.memory_maps() if memory.path.startswith(("/memfd:", "/dev/shm"))}
        assert shared == {"/memfd:world"}
    process.kill()
    assert process.communicate(timeout=20) == ("", "")
    assert_gone(there)


def test_workers_end_with_an_owner_that_does_not_close():
    process, there = owner(0)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0
    assert_gone(there, 0)


def test_a_keyboard_interrupt_is_the_owners():
    process, there = owner(60)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    for worker in there:
        worker.send_signal(signal.SIGINT)  # as some batch systems do
    assert process.communicate(timeout=20) == ("interrupted\n", "")
    assert process.returncode == 0
    assert_gone(there, 0)
