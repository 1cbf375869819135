"""The CPUs and GPUs of this machine, and whether a sweep fits into what there is."""

import os
import shutil
import subprocess
from pathlib import Path

from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.trial_resources import Resources, env_workers, trial_resources


def machine_resources() -> Resources:
    """CPUs and GPUs of this machine. The operating system is asked, so neither torch nor Ray is imported."""
    return Resources(cpus=os.cpu_count() or 1, gpus=_count_gpus())


def check_cluster(sweep: SweepConfig, there: Resources, where: str) -> None:
    """Checks that the resources `there` suffice for the sweep and for one trial.

    Args:
        sweep: the sweep.
        there: CPUs and GPUs that exist.
        where: name of the place in messages, such as "this machine" or "the cluster".

    Raises:
        ConfigError: the sweep asks for more than exists, or one trial needs more than the sweep may use.
    """
    cluster = sweep.cluster
    if cluster.num_cpus is not None and cluster.num_cpus > there.cpus:
        raise ConfigError(
            f"cluster.num_cpus must be at most the {there.cpus:g} CPUs of {where}, got {cluster.num_cpus}"
        )
    if cluster.num_gpus is not None and cluster.num_gpus > there.gpus:
        raise ConfigError(
            f"cluster.num_gpus must be at most the {there.gpus:g} GPUs of {where}, got {cluster.num_gpus:g}"
        )
    need = trial_resources(sweep)
    cpus = there.cpus if cluster.num_cpus is None else cluster.num_cpus
    gpus = there.gpus if cluster.num_gpus is None else cluster.num_gpus
    if need.cpus > cpus:
        parts = {"cluster.num_env_runners": cluster.num_env_runners, "cluster.num_learners": cluster.num_learners}
        if env_workers(sweep) > 0:
            parts["env.workers"] = env_workers(sweep)
        raise ConfigError(
            f"{' and '.join(parts)} must fit one trial into {cpus:g} CPUs, got "
            f"{' and '.join(map(str, parts.values()))}, which take {need.cpus:g} with the trial's process"
        )
    if need.gpus > gpus:
        raise ConfigError(
            f"cluster.num_gpus_per_learner and cluster.num_gpus_per_env_runner must fit one trial into {gpus:g} GPUs, "
            f"got {cluster.num_gpus_per_learner:g} and {cluster.num_gpus_per_env_runner:g}, which take {need.gpus:g}"
        )


def _count_gpus() -> int:
    """Number of NVIDIA GPUs that CUDA shows to a process of this machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    driver = Path("/proc/driver/nvidia/gpus")
    if driver.is_dir():
        return len(list(driver.iterdir()))
    command = shutil.which("nvidia-smi")
    if command is None:
        return 0
    listing = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=20, check=False)
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
