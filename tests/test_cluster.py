"""Joining a Ray cluster that somebody else started."""

import json
import os
import subprocess
import sys

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
