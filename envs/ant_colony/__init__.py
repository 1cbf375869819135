"""An ant colony on a grid: the world, its pictures, a scripted policy."""

from marl_tune.envs.ant_colony.world import AntColony, AntColonyConfig, parallel_env

__all__ = ["AntColony", "AntColonyConfig", "parallel_env"]
