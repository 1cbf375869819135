"""The copies of any world shared out among processes."""

from marl_tune.envs.workers.world import WorkerWorld

__all__ = ["WorkerWorld"]
