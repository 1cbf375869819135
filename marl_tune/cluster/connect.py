"""Ray for a sweep: starting or joining it, and what a trial takes of it."""

from __future__ import annotations

import logging
import os
import socket

import ray

from marl_tune.cluster.ray_quiet import quiet_ray
from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.cluster import ClusterConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.trial_resources import Resources, trial_resources


def connect(cluster: ClusterConfig, processes: int = 0) -> None:
    """Starts Ray on this machine, or joins a running cluster; a Ray that this process already uses is kept (multirun).

    Args:
        processes: that the sweep will keep busy at once. Ray holds one ready for each CPU; where at least every other
            of them will be used, they import what a trial needs before they are asked to.

    Raises:
        ConfigError: there is no cluster at `cluster.address`.
    """
    if ray.is_initialized():
        return
    quiet_ray()
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.name == "local":
        ready = 2 * processes >= (cluster.num_cpus or os.cpu_count() or 1)
        ray.init(
            address="local",
            num_cpus=cluster.num_cpus,
            num_gpus=cluster.num_gpus,
            _system_config={"preload_python_modules": ["marl_tune.trial.preload"]} if ready else {},
            **quiet,
        )
        return
    assert cluster.address is not None
    if cluster.address != "auto" and not _answers(cluster.address):
        raise ConfigError(
            f"cluster.address must be that of a running Ray cluster, nothing answers at {cluster.address!r}"
        )
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"cluster.address must be that of a running Ray cluster, got {cluster.address!r}: {error} (a cluster with "
            "tokens wants RAY_AUTH_MODE=token)"
        ) from error


def _answers(address: str) -> bool:
    """Whether something listens at host:port; Ray itself would try for ten minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def available() -> Resources:
    """What the connected cluster has in all."""
    there = ray.cluster_resources()
    return Resources(cpus=there.get("CPU", 0.0), gpus=there.get("GPU", 0.0))


def concurrent_trials(sweep: SweepConfig, there: Resources) -> int:
    """How many trials run at once where this much is there; at least 1."""
    need, limit = trial_resources(sweep), sweep.search.max_concurrent
    fits = int(there.cpus / need.cpus + 1e-6)
    if need.gpus:
        fits = min(fits, int(there.gpus / need.gpus + 1e-6))
    return max(1, fits if limit is None else min(fits, limit))
