"""VMAS's scenarios behind the interface of `World`."""

from marl_tune.envs.vmas.world import Vmas, VmasConfig

__all__ = ["Vmas", "VmasConfig"]
