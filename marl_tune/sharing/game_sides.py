"""Self-play and leagues: the sides of a world, and the modules that may play them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.self_play import LeagueConfig, SelfPlayConfig, VersusConfig
from marl_tune.config.schema.sharing import SharingConfig
from marl_tune.envs.agent_group import AgentGroup
from marl_tune.sharing.matchmaking import Matchmaker

MAIN = "main"  # the learner under self-play
MAIN_AGENT, MAIN_EXPLOITER, LEAGUE_EXPLOITER = "main", "main_exploiter", "league_exploiter"  # kinds of learners


def sides_of(groups: Sequence[AgentGroup], config: VersusConfig) -> dict[str, tuple[str, ...]]:
    """Side -> its agents, in the world's order.

    Raises:
        ConfigError: for fewer than two sides, sides whose agents have different spaces, an agent of no side, or a side
            without agents.
    """
    first = groups[0]
    for group in groups:
        if (group.observation_space, group.action_space) != (first.observation_space, first.action_space):
            raise ConfigError(
                f"sharing={config.name} needs agents with equal spaces on all sides, because one module plays them in"
                f" turn, got {first.name} with {first.observation_space} and {first.action_space}, {group.name} with"
                f" {group.observation_space} and {group.action_space}"
            )
    group_of = {agent: group.name for group in groups for agent in group.agents}
    if len(config.sides) == 0:
        if len(group_of) < 2:
            raise ConfigError(f"sharing={config.name} needs a world of two or more agents, got {', '.join(group_of)}")
        return {agent: (agent,) for agent in group_of}
    return _matched(group_of, config.sides)


def _matched(group_of: Mapping[str, str], patterns: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Side -> its agents; an agent belongs to the side of its `first_match`."""
    sides: dict[str, list[str]] = {side: [] for side in patterns}
    for agent, group in group_of.items():
        side = first_match(patterns, agent, group)
        if side is None:
            raise ConfigError(f"sharing.sides: no side's patterns match agent {agent!r} of group {group!r}")
        sides[side].append(agent)
    for side, agents in sides.items():
        if not agents:
            raise ConfigError(f"sharing.sides.{side}={list(patterns[side])} matches no agent that is not taken")
    return {side: tuple(agents) for side, agents in sides.items()}


def first_match(patterns: Mapping[str, Sequence[str]], agent: str, group: str) -> str | None:
    """The first name with a pattern that matches the agent's id or its group's name; None: no pattern matches."""
    for name, own in patterns.items():
        if any(fnmatchcase(agent, pattern) or fnmatchcase(group, pattern) for pattern in own):
            return name
    return None


def learners_of(config: VersusConfig) -> dict[str, str]:
    """Module id of each learner -> its kind. The first learner is the one that is evaluated and selected."""
    if isinstance(config, SelfPlayConfig):
        return {MAIN: MAIN_AGENT}
    assert isinstance(config, LeagueConfig)
    counts = {
        MAIN_AGENT: config.main_agents,
        MAIN_EXPLOITER: config.main_exploiters,
        LEAGUE_EXPLOITER: config.league_exploiters,
    }
    return {f"{kind}_{number}": kind for kind, count in counts.items() for number in range(count)}


def slots_of(config: VersusConfig) -> list[str]:
    """Module ids of the slots for frozen copies. The first slot holds the untrained policy."""
    return [f"opponent_{number}" for number in range(config.pool_size)]


def versus(groups: Sequence[AgentGroup], config: SharingConfig) -> dict[str, tuple[str, ...]]:
    """The scheme of self-play and leagues. Agent id -> all modules: each learner and frozen copy may play any side."""
    assert isinstance(config, VersusConfig)
    players = (*learners_of(config), *slots_of(config))
    return {agent: players for agents in sides_of(groups, config).values() for agent in agents}


def matchmaker(groups: Sequence[AgentGroup], config: SharingConfig) -> Matchmaker | None:
    """Draws the modules that play each game; None under a scheme without opponents."""
    if not isinstance(config, VersusConfig):
        return None
    return Matchmaker(sides_of(groups, config), list(learners_of(config)))
