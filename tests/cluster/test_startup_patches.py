"""Trials of a search start in the processes that Ray holds ready."""

from dataclasses import replace

import pytest
from ray.tune.execution.class_cache import _ActorClassCache

from marl_tune.cluster import connect, startup_patches


@pytest.mark.parametrize(("busy", "cpus", "ready"), [(2, 2, True), (4, 8, True), (3, 8, False), (0, 2, False)])
def test_processes_are_made_ready_where_most_of_them_will_be_used(tiny, monkeypatch, busy, cpus, ready):
    asked: dict = {}
    monkeypatch.setattr(connect.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(connect.ray, "init", lambda **words: asked.update(words))
    connect.connect(replace(tiny().cluster, num_cpus=cpus), busy)
    assert asked["_system_config"] == ({"preload_python_modules": ["marl_tune.trial.preload"]} if ready else {})


def test_a_process_that_is_ready_can_become_a_trial():
    """Ray gives it only to an actor without an environment of its own."""
    startup_patches.take_ready_processes()
    actor = _ActorClassCache().get(type("Plain", (), {}))
    assert "PL_DISABLE_FORK" not in actor._default_options["runtime_env"].get("env_vars", {})
