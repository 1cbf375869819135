"""Returns of episodes, summed up for those who read them."""

from collections.abc import Mapping, Sequence
from typing import Any

from envs.world import AgentGroup


def group_returns(groups: Sequence[AgentGroup], returns: Mapping[str, Any]) -> dict[str, Any]:
    """`<group>_return_mean` -> mean over the group's agents, where there are several groups: one number for all would
    say little of sides that play against each other.

    Args:
        returns: agent -> return of an episode, or of several.
    """
    counted = [group for group in groups if group.counted]
    if len(counted) == 1:
        return {}
    return {f"{g.name}_return_mean": sum(returns[agent] for agent in g.agents) / len(g.agents) for g in counted}
