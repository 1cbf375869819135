"""Leaves out what torch, RLlib and Tune do at a start for others: seconds of imports, folders, a whole Ray.

Each part takes hold of a name in a pinned library; `tests/sweep/test_in_process_driver.py` and
`tests/cluster/test_startup_patches.py` notice when an upgrade moves one.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env import env_runner_group
from ray.tune.execution import class_cache


def leave_out(compiles: bool) -> None:
    """Before the first Algorithm of this process is built; more calls do no harm.

    Args:
        compiles: whether torch's compiler is used, which then has to be there after all.
    """
    if not compiles:
        _compiler()
    env_runner_group.ray = _RayOnDemand()
    Algorithm._setup_logdir = _no_folder


def take_ready_processes() -> None:
    """For the process that runs Tune: its trials start in the processes that Ray holds ready.

    Tune sets an environment variable of PyTorch Lightning for every actor; for an environment of its own Ray starts a
    process anew.
    """
    class_cache.DEFAULT_ENV_VARS.clear()


# -- torch's compiler: two seconds of imports -------------------------------------------------------------------------


@functools.cache
def _compiler() -> None:
    """Optimizers and the deterministic flag work without `torch._dynamo` and `torch._inductor`.

    torch wraps what its compiler shall not trace, and imports the compiler at the first call to tell it so. It does
    without for a function that already carries its untraced version, and for an Adam that needs no break in a graph.
    """
    optimizer, adam = torch.optim.Optimizer, torch.optim.Adam
    for method in (optimizer.add_param_group, optimizer.load_state_dict, optimizer.state_dict, optimizer.zero_grad):
        function: Any = inspect.unwrap(method)
        function.__dynamo_disable = function
    adam.step = torch.no_grad()(inspect.unwrap(adam.step))  # type: ignore[method-assign]
    torch.use_deterministic_algorithms = _use_deterministic_algorithms  # type: ignore[assignment]


def _use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """torch's function without its second line, which tells the compiler."""
    torch._C._set_deterministic_algorithms(mode, warn_only=warn_only)


# -- RLlib's object store and folder ----------------------------------------------------------------------------------


class _RayOnDemand:
    """`ray` as RLlib's env runner group sees it.

    The group puts its config and, at every iteration, the weights into the object store, for remote runners only; but
    the first `put` starts a Ray where none runs, also for a group without any.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(ray, name)

    def put(self, value: Any) -> Any:
        """A reference to `value`, or `value` itself where no Ray runs.

        A config also stays as it is: a runner that dies could not be started again if the object was lost
        (https://github.com/ray-project/ray/issues/53727).
        """
        return ray.put(value) if ray.is_initialized() and not isinstance(value, AlgorithmConfig) else value


def _no_folder(self: Algorithm) -> None:
    """Tune's Trainable makes a folder in ~/ray_results for every Algorithm; ours writes into none."""
    self._logdir = None
