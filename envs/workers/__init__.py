"""The copies of any world shared out among processes."""

from envs.workers.world import WorkerWorld

__all__ = ["WorkerWorld"]
