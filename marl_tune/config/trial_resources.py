"""CPUs and GPUs of one trial, as they follow from its settings."""

from dataclasses import dataclass

from marl_tune.config.schema.sweep import SweepConfig


@dataclass(frozen=True)
class Resources:
    """An amount of CPUs and GPUs."""

    cpus: float
    gpus: float


def trial_resources(sweep: SweepConfig) -> Resources:
    """What one trial takes: its own process (and the learner's GPUs when it has no learner processes), and its env
    runners and learners."""
    cluster = sweep.cluster
    runners, learners = cluster.num_env_runners, cluster.num_learners
    return Resources(
        cpus=own_cpus(sweep) + runners * runner_cpus(sweep) + learners * cluster.num_cpus_per_learner,
        gpus=runners * cluster.num_gpus_per_env_runner + max(learners, 1) * cluster.num_gpus_per_learner,
    )


def own_cpus(sweep: SweepConfig) -> float:
    """CPUs of a trial's own process: 1, or as many as the processes that step its world, of which it is one."""
    return 1.0 if sweep.cluster.num_env_runners > 0 else float(max(1, env_workers(sweep)))


def runner_cpus(sweep: SweepConfig) -> float:
    """CPUs of one env runner."""
    return max(sweep.cluster.num_cpus_per_env_runner, float(env_workers(sweep)))


def env_workers(sweep: SweepConfig) -> int:
    """Processes that step the world of one runner, its own included; 0: its own alone."""
    return min(getattr(sweep.env, "workers", 0), sweep.cluster.num_envs_per_env_runner)
