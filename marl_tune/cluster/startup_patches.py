"""Patches of Ray and RLlib that save seconds when a trial starts. Each one replaces a name inside a pinned library.

Every patch names its reason, its gain and its test. The gains are measured by `python -m benchmarks.startup_patches`
and listed in docs/decisions/startup_and_ray.md. The other patch of Ray is in `marl_tune.cluster.tune_controller`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import ray
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env import env_runner_group
from ray.tune.execution import class_cache

T = TypeVar("T")


@contextmanager
def building(compiles: bool) -> Iterator[None]:
    """Everything below that the building of an Algorithm needs: put it around `AlgorithmConfig.build_algo`.

    Args:
        compiles: whether torch's compiler is used in this process (`cluster.torch_compile`).
    """
    ray_on_demand()
    with deterministic_without_compiler(compiles):
        yield


# -- torch's compiler --------------------------------------------------------------------------------------------------


@contextmanager
def deterministic_without_compiler(compiles: bool) -> Iterator[None]:
    """`torch.use_deterministic_algorithms` does not import torch's compiler meanwhile.

    Reason: RLlib calls this function when an Algorithm gets its seed. The function imports `torch._inductor` to set a
        flag of the compiler there. A trial that does not compile does not need that flag.
    Gain: 3.7 s of the processor's time, 34 % of a lone trial of one iteration.
    Test: `test_the_deterministic_switch_loads_the_compiler_unless_patched`.

    Args:
        compiles: where true, nothing is replaced.
    """
    original = torch.use_deterministic_algorithms

    def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
        if "torch._inductor.config" in sys.modules:  # the compiler is loaded already: then tell it, too
            original(mode, warn_only=warn_only)
        else:
            torch._C._set_deterministic_algorithms(mode, warn_only=warn_only)

    if compiles:
        yield
        return
    torch.use_deterministic_algorithms = use_deterministic_algorithms
    try:
        yield
    finally:
        torch.use_deterministic_algorithms = original


# -- RLlib's object store ----------------------------------------------------------------------------------------------


def ray_on_demand() -> None:
    """RLlib's env runner groups start no Ray from now on; more calls do no harm.

    Reason: a group puts its config and, at every iteration, the weights into Ray's object store. They are for remote
        env runners only. But `ray.put` starts a whole Ray where none runs, also for a group without remote runners.
    Gain: 10 s of the processor's time, 57 % of a lone trial of one iteration.
    Test: `test_env_runner_groups_put_into_the_object_store_of_ray`.

    The name `ray` in RLlib's module stays replaced until the process ends. A group uses it at every iteration, so the
    patch cannot end when the Algorithm is built.
    """
    env_runner_group.ray = RayOnDemand()


class RayOnDemand:
    """The module `ray` as RLlib's env runner groups see it: only `put` differs."""

    def __getattr__(self, name: str) -> object:
        return getattr(ray, name)

    def put(self, value: T) -> ray.ObjectRef | T:
        """Returns a reference to `value`, or `value` itself where no Ray runs.

        A config is always returned itself. RLlib starts a dead runner again from this reference, which fails when
        the object is lost (https://github.com/ray-project/ray/issues/53727).
        """
        return ray.put(value) if ray.is_initialized() and not isinstance(value, AlgorithmConfig) else value


# -- Tune's processes --------------------------------------------------------------------------------------------------


@contextmanager
def ready_processes() -> Iterator[None]:
    """Tune starts trials in the processes that Ray holds ready meanwhile: put it around `tune.run`.

    Reason: Tune sets an environment variable for PyTorch Lightning (`PL_DISABLE_FORK`) in every actor. For an actor
        with environment variables of its own Ray starts a new process, which imports everything again.
    Gain: 5.1 s of the processor's time, 12 % of a search with two trials of two iterations.
    Test: `test_a_process_that_is_ready_can_become_a_trial`.
    """
    original = dict(class_cache.DEFAULT_ENV_VARS)
    class_cache.DEFAULT_ENV_VARS.clear()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS.update(original)
