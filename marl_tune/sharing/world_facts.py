"""What the rules ask of the world itself, once for all trials that a search can draw. Needs neither torch nor ray."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym

from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.sharing import HierarchicalConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.world import agents_per_step
from marl_tune.sharing.policy_map import PolicyMap
from marl_tune.sharing.schemes import module_of_agents
from marl_tune.sharing.world import build_world


@dataclass(frozen=True)
class WorldFacts:
    """One copy of a sweep's world, managers included where the sharing scheme adds some."""

    groups: tuple[AgentGroup, ...]
    state_space: gym.spaces.Box
    agents_per_step: float  # how many act in a step, on average
    takes_turns: bool  # not all act in all steps: they take turns, die or join
    least_acting: int  # how many are sure to act in each step where `takes_turns`


def world_facts(sweep: SweepConfig) -> WorldFacts:
    """Builds the sweep's world and closes it again; asked again of the same world it remembers.

    Raises:
        ConfigError: where the world refuses its settings, or the sharing scheme does not fit it.
    """
    managers = repr(sweep.sharing) if isinstance(sweep.sharing, HierarchicalConfig) else ""
    key = repr(sweep.env) + managers
    if key not in _KNOWN:
        try:
            with build_world(sweep) as world:
                takes_turns, each_step = world.acting is not None, agents_per_step(world)
                _KNOWN[key] = WorldFacts(world.groups, world.state_space, each_step, takes_turns, world.least_acting)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(str(error)) from error
    return _KNOWN[key]


def policy_map_of(sweep: SweepConfig) -> PolicyMap:
    """Which agents each module may act for, in the sweep's world. Raises ConfigError as `world_facts` does."""
    groups = world_facts(sweep).groups
    return PolicyMap(groups, module_of_agents(groups, sweep.sharing))


_KNOWN: dict[str, WorldFacts] = {}  # settings -> facts
