"""Builds the sweep's world, with the managers that `sharing=hierarchical` adds."""

from __future__ import annotations

from marl_tune import envs
from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.sharing import HierarchicalConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.hierarchy import Goals, Hierarchy
from marl_tune.envs.world import World


def build_world(sweep: SweepConfig, num_envs: int = 1) -> World:
    """B copies of the sweep's world.

    Raises:
        ConfigError: where managers are wanted and the world has no place for them.
        ValueError: where the world itself refuses its settings.
    """
    world, sharing = envs.make_world(sweep.env, num_envs), sweep.sharing
    if not isinstance(sharing, HierarchicalConfig):
        return world
    try:
        return Hierarchy(world, sharing.interval, Goals(sharing.goals, sharing.goal_dim), sharing.manager == "team")
    except ValueError as error:
        world.close()
        raise ConfigError(f"sharing=hierarchical: {error}") from error
