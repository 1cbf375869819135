"""A three-dimensional grid of resources: the world, its pictures, a scripted policy."""

from marl_tune.envs.bio_grid.world import BioGrid, BioGridConfig

__all__ = ["BioGrid", "BioGridConfig"]
