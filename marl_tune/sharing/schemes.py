"""Policy sharing: which agent is controlled by which module.

A scheme is a function (agent groups, its settings) -> {agent id: module id, or several that may act for it}, and a line
of `marl_tune.config.registry.SHARING`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from marl_tune.config.errors import ConfigError
from marl_tune.config.registry import SHARING
from marl_tune.config.schema.sharing import SharedCriticConfig, SharingConfig
from marl_tune.envs.agent_group import AgentGroup
from marl_tune.sharing.game_sides import first_match

SHARED = "shared"
CRITIC = "critic"  # id of the central critic under shared_critic: it values for all agents and acts for none


def parameter_sharing(groups: Sequence[AgentGroup], config: SharingConfig) -> dict[str, str]:
    """One module for all agents; one per group where the groups' spaces differ."""
    spaces = {(str(g.observation_space), str(g.action_space)) for g in groups}
    return {agent: SHARED if len(spaces) == 1 else group.name for group in groups for agent in group.agents}


def independent(groups: Sequence[AgentGroup], config: SharingConfig) -> dict[str, str]:
    """One module an agent, named as the agent (Tan 1993, independent learners)."""
    return {agent: agent for group in groups for agent in group.agents}


def roles(groups: Sequence[AgentGroup], config: SharingConfig) -> dict[str, str]:
    """Modules with names. An agent belongs to the first role with a pattern that matches its id or its group's name."""
    patterns = {role: role_config.agents for role, role_config in config.roles.items()}
    module_of = {}
    for group in groups:
        for agent in group.agents:
            role = first_match(patterns, agent, group.name)
            if role is None:
                raise ConfigError(f"sharing.roles: no role's patterns match agent {agent!r} of group {group.name!r}")
            module_of[agent] = role
    for role, role_config in config.roles.items():
        if role not in module_of.values():
            raise ConfigError(
                f"sharing.roles.{role}.agents={list(role_config.agents)} match no agent that is not taken"
            )
    return module_of


def shared_critic(groups: Sequence[AgentGroup], config: SharingConfig) -> dict[str, str]:
    """The modules that act; the critic is not among them.

    Raises:
        ConfigError: where a module that acts has the critic's name.
    """
    assert isinstance(config, SharedCriticConfig)
    module_of = (parameter_sharing if config.actors == "parameter_sharing" else independent)(groups, config)
    if CRITIC in module_of.values():
        kind = "group" if config.actors == "parameter_sharing" else "agent"
        raise ConfigError(
            f"sharing=shared_critic must have the module name {CRITIC!r} for itself, got a world with {kind} {CRITIC!r}"
        )
    return module_of


def hierarchical(groups: Sequence[AgentGroup], config: SharingConfig) -> dict[str, str]:
    """Workers as under `parameter_sharing`; one module for each group of managers, named as the group."""
    workers = [group for group in groups if group.counted]
    managers = {agent: group.name for group in groups if not group.counted for agent in group.agents}
    return parameter_sharing(workers, config) | managers


def module_of_agents(groups: Sequence[AgentGroup], config: SharingConfig) -> Mapping[str, str | Sequence[str]]:
    """Agent id -> module id, or those that may act for it, under the chosen scheme."""
    return SHARING[config.name].load()(groups, config)
