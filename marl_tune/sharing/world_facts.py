"""Facts of a sweep's world, which is built once to learn them. Needs neither torch nor ray.

The rules of `marl_tune.validation` and every AlgorithmConfig ask here. So a trial that takes over new settings of its
algorithm builds no world for its new config.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import gymnasium as gym

from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.sharing import HierarchicalConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.world import agents_per_step
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.policy_map import PolicyMap
from marl_tune.sharing.schemes import module_of_agents

REMEMBERED = 256  # worlds whose facts are kept: a search over settings of the world has no end of them


@dataclass(frozen=True)
class WorldFacts:
    """One copy of a sweep's world, with the managers that a hierarchical sharing scheme adds."""

    groups: tuple[AgentGroup, ...]
    state_space: gym.spaces.Box
    agents_per_step: float  # how many agents act in a step, on average
    takes_turns: bool  # whether agents take turns, die or join, so that not all act in every step
    least_acting: int  # where `takes_turns`: how many agents act in each step at least


def world_facts(sweep: SweepConfig) -> WorldFacts:
    """Builds the sweep's world, asks it and closes it. A world with the same settings is not built again.

    Raises:
        ConfigError: where the world refuses its settings, or the sharing scheme does not fit it.
    """
    managers = repr(sweep.sharing) if isinstance(sweep.sharing, HierarchicalConfig) else ""
    key = repr(sweep.env) + managers
    if key in KNOWN:
        KNOWN.move_to_end(key)
        return KNOWN[key]
    try:
        with build_world(sweep) as world:
            takes_turns, each_step = world.acting is not None, agents_per_step(world)
            facts = WorldFacts(world.groups, world.state_space, each_step, takes_turns, world.least_acting)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    KNOWN[key] = facts
    if len(KNOWN) > REMEMBERED:
        KNOWN.popitem(last=False)
    return facts


def policy_map_of(sweep: SweepConfig) -> PolicyMap:
    """Which modules may act for which agents of the sweep's world. Raises ConfigError as `world_facts` does."""
    groups = world_facts(sweep).groups
    return PolicyMap(groups, module_of_agents(groups, sweep.sharing))


KNOWN: OrderedDict[str, WorldFacts] = OrderedDict()  # settings -> facts, those asked for last at the end
