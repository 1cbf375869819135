"""Joining a Ray cluster that somebody else started, and what a trial takes of one."""

import json
import os
import subprocess
import sys

import pytest

from marl_tune.cluster.connect import concurrent_trials
from marl_tune.cluster.machine import check_cluster
from marl_tune.config.compose import compose
from marl_tune.config.errors import ConfigError
from marl_tune.config.trial_resources import Resources, trial_resources
from marl_tune.sweep.tune_driver import placement

ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled", "WANDB_MODE": "offline"}
HEAD = """
import ray, sys
context = ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


def joined(home, address):
    words = ["+experiment=debug", "cluster=auto", f"cluster.address={address}", "results_dir=out"]
    command = [sys.executable, "-m", "marl_tune", *words]
    return subprocess.run(command, cwd=home, capture_output=True, text=True, env=ENVIRONMENT, timeout=150)


@pytest.mark.slow
def test_a_sweep_joins_a_running_cluster(tmp_path):
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        done = joined(tmp_path, head.stdout.readline().strip())
    finally:
        head.communicate("")
    assert done.returncode == 0, done.stderr
    (summary,) = (tmp_path / "out").rglob("summary.json")
    assert json.loads(summary.read_text())["status"] == "finished"


def test_an_address_where_nothing_answers_is_refused_at_once(tmp_path):
    done = joined(tmp_path, "127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: cluster.address must be that of a running Ray cluster")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "cpus", "at_once"),
    [
        ([], 1, 2),
        (["env.workers=2"], 2, 1),  # the trial's own process waits while they step
        (["env.workers=2", "cluster.num_envs_per_env_runner=1"], 1, 2),  # one copy has no workers
        (["env.workers=2", "cluster.num_env_runners=1", "cluster.num_cpus_per_env_runner=0.5"], 3, 1),
        (["cluster.num_env_runners=1", "cluster.num_cpus_per_env_runner=0.5"], 1.5, 1),
    ],
)
def test_worker_processes_of_the_world_count_as_cpus(words, cpus, at_once):
    (sweep,) = compose(["env=pettingzoo", *words])
    assert trial_resources(sweep) == Resources(cpus, 0)
    assert concurrent_trials(sweep, Resources(2, 0)) == at_once
    assert sum(bundle["CPU"] for bundle in placement(sweep).bundles) == cpus


def test_more_workers_than_cpus_are_refused():
    (sweep,) = compose(["env=pettingzoo", "env.workers=3"])
    with pytest.raises(
        ConfigError, match=r"env\.workers must fit one trial into 2 CPUs, got 0 and 0 and 3, which take 3"
    ):
        check_cluster(sweep, Resources(2, 0), "here")
