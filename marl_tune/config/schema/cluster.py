"""Settings of `cluster`."""

from dataclasses import dataclass

from marl_tune.config.errors import invalid
from marl_tune.config.range_checks import at_least, one_of


@dataclass
class ClusterConfig:
    """The machines, and what one trial takes of them.

    A trial takes 1 CPU for its own process, and besides that what its env runners and learners take.
    """

    name: str  # local: start Ray on this machine | auto: join a running cluster
    num_cpus: int | None  # CPUs that the sweep may use, at least 1; null: all
    num_gpus: float | None  # GPUs that the sweep may use, at least 0; null: all
    address: str | None  # host:port of the cluster's head, or auto; null under local
    num_env_runners: int  # processes a trial that sample, at least 0; 0: the trial's own process samples
    num_envs_per_env_runner: int  # copies of the world stepped at once in each, at least 1
    num_cpus_per_env_runner: float  # CPUs of each such process, at least 0
    num_gpus_per_env_runner: float  # GPUs of each, fractions allowed, at least 0
    num_learners: int  # processes a trial that compute gradients, at least 0; 0: the trial's own process
    num_cpus_per_learner: float  # CPUs of each such process, at least 0
    num_gpus_per_learner: float  # GPUs of each (of the trial's process when num_learners is 0), fractions allowed
    rollout: str  # batched: one forward pass for all agents and copies | rllib: RLlib's own env runner
    torch_threads: int  # threads that torch may use in each process, at least 1
    torch_compile: bool  # compile the learner's forward pass: a minute at the start, pays for large networks
    precision: str  # of the learner's forward and backward pass: float32 | bfloat16 (mixed; losses stay float32)
    max_failures: int  # times that a failed trial is started again from its last checkpoint, at least 0; -1: no limit

    def __post_init__(self) -> None:
        one_of("cluster.name", self.name, ("local", "auto"))
        if self.name == "local" and self.address is not None:
            raise invalid("cluster.address", "be null under cluster=local (use cluster=auto to join)", self.address)
        if self.name == "auto" and not self.address:
            raise invalid("cluster.address", "be host:port or auto under cluster=auto", self.address)
        for key in ("num_cpus", "num_envs_per_env_runner", "torch_threads"):
            at_least(f"cluster.{key}", getattr(self, key), 1)
        for key in ("num_env_runners", "num_learners", "num_gpus"):
            at_least(f"cluster.{key}", getattr(self, key), 0)
        for part in ("env_runner", "learner"):
            at_least(f"cluster.num_cpus_per_{part}", getattr(self, f"num_cpus_per_{part}"), 0)
            gpus = getattr(self, f"num_gpus_per_{part}")
            at_least(f"cluster.num_gpus_per_{part}", gpus, 0)
            if gpus > 1 and gpus != int(gpus):
                raise invalid(f"cluster.num_gpus_per_{part}", "be a whole number where it is above 1", gpus)
        one_of("cluster.rollout", self.rollout, ("batched", "rllib"))
        one_of("cluster.precision", self.precision, ("float32", "bfloat16"))
        if self.torch_compile and self.num_learners > 0:
            raise invalid("cluster.torch_compile", "be false where cluster.num_learners is above 0", True)
        at_least("cluster.max_failures", self.max_failures, -1)
