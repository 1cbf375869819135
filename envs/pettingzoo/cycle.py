"""A turn-based PettingZoo world as a parallel one, without the layers that only check what is certain here.

`parallel_env` of nearly every PettingZoo world is its turn-based `raw_env` inside two wrappers that check, inside
`aec_to_parallel_wrapper`. That one looks at every attribute through all layers, some 50 times a step, and has each
observation made twice: nearly half of the time that simple_spread_v3 takes. What it does is kept, step by step.
"""

from typing import Any

from pettingzoo.utils.conversions import aec_to_parallel_wrapper
from pettingzoo.utils.wrappers import AssertOutOfBoundsWrapper, OrderEnforcingWrapper

CHECKS_ONLY = (OrderEnforcingWrapper, AssertOutOfBoundsWrapper)  # reset comes first, and actions are of their space


def without_checks(env: Any) -> Any:
    """The same world without its outermost wrappers that only check; faster still behind `aec_to_parallel_wrapper`."""
    if type(env) is aec_to_parallel_wrapper:
        return Cycle(without_checks(env.aec_env))
    while type(env) in CHECKS_ONLY:
        env = env.env
    return env


class Cycle(aec_to_parallel_wrapper):
    """A turn-based world of which a step is one action of each agent in turn."""

    def step(self, actions: dict[Any, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """As `aec_to_parallel_wrapper.step`. Raises RuntimeError if an agent is not the next in turn."""
        world, rewards = self.aec_env, dict.fromkeys(self.aec_env.agents, 0)
        for agent in world.agents:
            if agent != world.agent_selection:
                raise RuntimeError(
                    f"{world} must step its agents in turn: {agent!r} is next, not {world.agent_selection!r}"
                )
            world.step(actions[agent])
            for other in world.agents:
                rewards[other] = rewards.get(other, 0) + world.rewards[other]
        terminations, truncations, infos = dict(world.terminations), dict(world.truncations), dict(world.infos)
        observations = {agent: world.observe(agent) for agent in world.agents}
        while world.agents and (world.terminations[world.agent_selection] or world.truncations[world.agent_selection]):
            world.step(None)
        self.agents = world.agents
        return observations, rewards, terminations, truncations, infos
