"""RLlib's specifications of the modules that a sweep trains."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import gymnasium as gym
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from marl_tune import modules
from marl_tune.config.role_settings import role_modules
from marl_tune.config.schema.self_play import VersusConfig
from marl_tune.config.schema.sharing import SharedCriticConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.agent_group import DirectionTokens
from marl_tune.envs.hierarchy import MANAGER
from marl_tune.envs.world import World
from marl_tune.modules.central_critic import CentralCritic
from marl_tune.sharing.game_sides import learners_of, matchmaker
from marl_tune.sharing.policy_map import PolicyMap
from marl_tune.sharing.schemes import CRITIC, module_of_agents
from marl_tune.sharing.world_facts import WorldFacts

MODULE_SETTINGS = "module_settings"  # key of: module id -> model config, whose live fields a running module takes over
ModelConfig = dict[str, Any]  # RLlib's name for the settings of one module


def build_policy_map(sweep: SweepConfig, world: World | WorldFacts) -> PolicyMap:
    """Which modules act for which agents of this world, under the sweep's sharing scheme."""
    matches = matchmaker(world.groups, sweep.sharing)
    return PolicyMap(
        world.groups, module_of_agents(world.groups, sweep.sharing), None if matches is None else matches.draw, matches
    )


def module_configs(sweep: SweepConfig, policy_map: PolicyMap) -> dict[str, ModelConfig]:
    """Module id -> model config: the settings, changed by the module's role, and facts of its observations."""
    of_role = role_modules(sweep)
    configs: dict[str, ModelConfig] = {}
    for module_id, agents in policy_map.modules.items():
        group = next(g for g in policy_map.groups if g.name == agents.groups[0])
        settings = of_role.get(module_id if group.counted else MANAGER, sweep.module)
        configs[module_id] = dataclasses.asdict(settings) | {
            "tokens": _tokens(group.tokens),
            "positions": None if group.positions is None else list(group.positions),
            "team_size": len(agents.agents),
        }
        if isinstance(sweep.sharing, SharedCriticConfig):
            configs[module_id]["central_critic"] = True
    return configs


def critic_specs(sweep: SweepConfig, world: World | WorldFacts) -> dict[str, RLModuleSpec]:
    """Module id -> specification of the central critic; empty where each module has a critic of its own."""
    if not isinstance(sweep.sharing, SharedCriticConfig):
        return {}
    agents = [agent for group in world.groups for agent in group.agents]
    spec = RLModuleSpec(
        module_class=CentralCritic,
        observation_space=world.state_space,
        action_space=gym.spaces.Box(
            -math.inf, math.inf, (len(agents),)
        ),  # one value for each agent; it takes no actions
        learner_only=True,
        model_config=dataclasses.asdict(sweep.module) | {"agents": agents},
    )
    return {CRITIC: spec}


def _tokens(tokens: DirectionTokens | None) -> dict[str, list[object]] | None:
    if tokens is None:
        return None
    return {"indices": list(tokens.indices), "directions": [list(d) for d in tokens.directions]}


def module_specs(sweep: SweepConfig, policy_map: PolicyMap) -> MultiRLModuleSpec:
    """RLlib's specification of all modules of the sweep that act for agents."""
    return MultiRLModuleSpec(
        multi_rl_module_class=modules.module_class(sweep.module.name).team_class,
        rl_module_specs={
            module_id: RLModuleSpec(
                module_class=modules.module_class(config["name"]),
                observation_space=policy_map.modules[module_id].observation_space,
                action_space=policy_map.modules[module_id].action_space,
                model_config=config,
            )
            for module_id, config in module_configs(sweep, policy_map).items()
        },
    )


def trains(sweep: SweepConfig, module_id: str) -> bool:
    """Whether a module learns. Frozen opponents do not, and modules of roles with `trains: false` do not."""
    if isinstance(sweep.sharing, VersusConfig):
        return module_id in learners_of(sweep.sharing)
    role = sweep.sharing.roles.get(module_id)
    return role is None or role.trains
