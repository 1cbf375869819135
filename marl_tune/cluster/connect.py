"""Ray for a sweep: starts or joins it, and counts how many trials run in it at once."""

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
    """Starts Ray on this machine, or joins a running cluster. Where this process already uses a Ray, it stays.

    Args:
        cluster: the settings; `name` says whether to start or to join.
        processes: number of processes that the sweep will keep busy at once. Ray holds one process ready for each CPU.
            Where at least half of them will be used, they import in advance what a trial needs.

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
    """Whether something listens at host:port. Ray itself would try for ten minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def available() -> Resources:
    """All CPUs and GPUs of the connected cluster, used ones too."""
    total = ray.cluster_resources()
    return Resources(cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0))


def concurrent_trials(sweep: SweepConfig, there: Resources) -> int:
    """How many trials run at once with the resources `there`, at least 1."""
    need, limit = trial_resources(sweep), sweep.search.max_concurrent
    fits = int(there.cpus / need.cpus + 1e-6)
    if need.gpus:
        fits = min(fits, int(there.gpus / need.gpus + 1e-6))
    return max(1, fits if limit is None else min(fits, limit))
