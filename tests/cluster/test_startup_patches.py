"""Patches of torch, RLlib and Tune for a quick start. Each test fails where its patch is needed no longer or misses."""

import inspect
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import pytest
import ray
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.env import env_runner_group
from ray.tune import Trainable
from ray.tune.execution.class_cache import _ActorClassCache

from benchmarks.startup_patches import PATCHES
from marl_tune.cluster import connect, startup_patches
from marl_tune.cluster.algorithm_folder import without_folder

DETERMINISTIC = """
import sys, torch
from marl_tune.cluster.startup_patches import deterministic_without_compiler
with deterministic_without_compiler(compiles={compiles}):
    torch.use_deterministic_algorithms(True)
assert torch.are_deterministic_algorithms_enabled()
print("torch._inductor" in sys.modules)
"""


@pytest.mark.parametrize("compiles", [False, True])
def test_the_deterministic_switch_loads_the_compiler_unless_patched(compiles):
    done = subprocess.run(
        [sys.executable, "-c", DETERMINISTIC.format(compiles=compiles)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(compiles)


def test_torch_is_as_it_was_after_a_trial_was_built(trial):
    """Other optimizers of the process keep torch's own methods, and others who set the switch call torch's function."""
    names = ("step", "state_dict", "load_state_dict", "zero_grad", "add_param_group")
    before, switch = {name: getattr(torch.optim.Adam, name) for name in names}, torch.use_deterministic_algorithms
    trial().train()
    assert {name: getattr(torch.optim.Adam, name) for name in names} == before
    assert torch.optim.Adam.step.__wrapped__.__module__ == "torch.optim.adam"
    assert inspect.unwrap(torch.optim.Adam.step).__code__.co_filename == inspect.getsourcefile(torch.optim.Adam)
    assert torch.use_deterministic_algorithms is switch


def test_env_runner_groups_put_into_the_object_store_of_ray(monkeypatch):
    source = inspect.getsource(env_runner_group)
    assert "self._remote_config_obj_ref = ray.put(self._remote_config)" in source
    assert "rl_module_state_ref = ray.put(rl_module_state)" in source
    monkeypatch.setattr(env_runner_group, "ray", ray)
    startup_patches.ray_on_demand()
    patched = env_runner_group.ray
    assert patched.get is ray.get
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert patched.put(weights := {"w": 1}) is weights
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "put", lambda value: ("reference", value))
    assert patched.put(weights) == ("reference", weights)
    config = AlgorithmConfig()
    assert patched.put(config) is config


def environment_of_an_actor() -> dict[str, str]:
    actor = _ActorClassCache().get(type("Plain", (), {}))
    return actor._default_options["runtime_env"].get("env_vars", {})


def test_a_process_that_is_ready_can_become_a_trial():
    """Ray gives it only to an actor without an environment of its own."""
    with startup_patches.ready_processes():
        assert "PL_DISABLE_FORK" not in environment_of_an_actor()
    assert "PL_DISABLE_FORK" in environment_of_an_actor()


@pytest.mark.parametrize(("busy", "cpus", "ready"), [(2, 2, True), (4, 8, True), (3, 8, False), (0, 2, False)])
def test_processes_are_made_ready_where_most_of_them_will_be_used(tiny, monkeypatch, busy, cpus, ready):
    asked: dict = {}
    monkeypatch.setattr(connect.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(connect.ray, "init", lambda **words: asked.update(words))
    connect.connect(replace(tiny().cluster, num_cpus=cpus), busy)
    assert asked["_system_config"] == ({"preload_python_modules": ["marl_tune.trial.preload"]} if ready else {})


def test_an_algorithm_makes_no_folder():
    """Tune's Trainable calls this method when an instance is made; RLlib does not override it."""
    assert "self._setup_logdir()" in inspect.getsource(Trainable.__init__)
    assert PPO._setup_logdir is Trainable._setup_logdir
    kind = without_folder(PPO)
    assert issubclass(kind, PPO)
    assert kind is without_folder(PPO)
    instance = object.__new__(kind)
    instance._setup_logdir()
    assert instance._logdir is None


@pytest.mark.parametrize("name", PATCHES)
def test_the_benchmark_finds_what_it_leaves_out(name):
    """A patch that was renamed would stay in place in both of the commands that are compared."""
    for place in (PATCHES[name].place, PATCHES[name].instead):
        module, _, attribute = place.partition(":")
        assert callable(getattr(import_module(module), attribute))
