"""Policy sharing: which agent is controlled by which module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from envs.world import AgentGroup
from marl_tune.errors import ConfigError
from marl_tune.schema import SharingConfig
from marl_tune.sides import versus

SHARED = "shared"


def parameter_sharing(groups: Sequence[AgentGroup], config: SharingConfig) -> dict[str, str]:
    """One module for all agents; one per group where the groups' spaces differ."""
    spaces = {(str(g.observation_space), str(g.action_space)) for g in groups}
    return {agent: SHARED if len(spaces) == 1 else group.name for group in groups for agent in group.agents}


def independent(groups: Sequence[AgentGroup], config: SharingConfig) -> dict[str, str]:
    """One module an agent, named as the agent (Tan 1993, independent learners)."""
    return {agent: agent for group in groups for agent in group.agents}


def roles(groups: Sequence[AgentGroup], config: SharingConfig) -> dict[str, str]:
    """Named modules; the first role one of whose patterns matches the agent's id or its group's name takes it."""
    module_of = {}
    for group in groups:
        for agent in group.agents:
            role = next((r for r, c in config.roles.items() if _matches(c.agents, agent, group.name)), None)
            if role is None:
                raise ConfigError(f"sharing.roles: no role's patterns match agent {agent!r} of group {group.name!r}")
            module_of[agent] = role
    for role, role_config in config.roles.items():
        if role not in module_of.values():
            raise ConfigError(
                f"sharing.roles.{role}.agents={list(role_config.agents)} match no agent that is not taken"
            )
    return module_of


def _matches(patterns: Sequence[str], agent: str, group: str) -> bool:
    return any(fnmatchcase(agent, p) or fnmatchcase(group, p) for p in patterns)


SHARING: dict[str, Callable[[Sequence[AgentGroup], SharingConfig], Mapping[str, str | Sequence[str]]]] = {
    "parameter_sharing": parameter_sharing,
    "independent": independent,
    "roles": roles,
    "self_play": versus,
    "league": versus,
}


def module_of_agents(groups: Sequence[AgentGroup], config: SharingConfig) -> Mapping[str, str | Sequence[str]]:
    """Agent id -> module id, or those that may act for it, under the chosen scheme."""
    return SHARING[config.name](groups, config)
