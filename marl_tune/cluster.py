"""Ray for a sweep: starting or joining it, and what a trial takes of it."""

from __future__ import annotations

import logging
import socket

import ray
from ray import tune

from marl_tune.errors import ConfigError
from marl_tune.quiet import quiet_ray
from marl_tune.resources import Resources, trial_resources
from marl_tune.schema import ClusterConfig


def connect(cluster: ClusterConfig) -> None:
    """Starts Ray on this machine, or joins a running cluster; a Ray that this process already uses is kept (multirun).

    Raises:
        ConfigError: there is no cluster at `cluster.address`.
    """
    if ray.is_initialized():
        return
    quiet_ray()
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.name == "local":
        ray.init(address="local", num_cpus=cluster.num_cpus, num_gpus=cluster.num_gpus, **quiet)
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


def placement(cluster: ClusterConfig) -> tune.PlacementGroupFactory:
    """The bundles of one trial: its own process first, then its env runners, then its learners."""
    own_gpus = cluster.num_gpus_per_learner if cluster.num_learners == 0 else 0
    bundles = [_bundle(1, own_gpus)]
    bundles += [_bundle(cluster.num_cpus_per_env_runner, cluster.num_gpus_per_env_runner)] * cluster.num_env_runners
    bundles += [_bundle(cluster.num_cpus_per_learner, cluster.num_gpus_per_learner)] * cluster.num_learners
    return tune.PlacementGroupFactory(bundles)


def _bundle(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def concurrent_trials(cluster: ClusterConfig, there: Resources, limit: int | None) -> int:
    """How many trials run at once where this much is there; at least 1."""
    need = trial_resources(cluster)
    fits = int(there.cpus / need.cpus + 1e-6)
    if need.gpus:
        fits = min(fits, int(there.gpus / need.gpus + 1e-6))
    return max(1, fits if limit is None else min(fits, limit))
