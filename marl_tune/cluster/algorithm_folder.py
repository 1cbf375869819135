"""RLlib's Algorithms without a folder of their own."""

from __future__ import annotations

from functools import cache

from ray.rllib.algorithms.algorithm import Algorithm


@cache
def without_folder(kind: type[Algorithm]) -> type[Algorithm]:
    """A subclass of `kind` that makes no folder.

    Tune's Trainable, which RLlib's Algorithm is, makes a folder in ~/ray_results for every instance. We write nothing
    into it: all files of a run are in the run's own folder.
    """

    class WithoutFolder(kind):
        def _setup_logdir(self) -> None:
            self._logdir = None

    WithoutFolder.__name__ = kind.__name__  # RLlib shows it in its messages
    return WithoutFolder
