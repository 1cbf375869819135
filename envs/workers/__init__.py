"""Stepping the copies of a world in several processes at the same time."""

from marl_tune.envs.workers.world import WorkerWorld

__all__ = ["WorkerWorld"]
