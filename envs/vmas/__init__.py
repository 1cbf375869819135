"""VMAS's scenarios behind the interface of `World`."""

from envs.vmas.world import Vmas, VmasConfig

__all__ = ["Vmas", "VmasConfig"]
