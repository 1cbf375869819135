"""A turn-based PettingZoo world as a parallel one, without the wrappers that only check.

The `parallel_env` of nearly every PettingZoo world is its turn-based `raw_env` inside two wrappers that check the
calls, inside `aec_to_parallel_wrapper`. The latter looks up every attribute through all wrappers, about 50 times a
step, and makes each observation twice. In simple_spread_v3 this takes nearly half of the time. The class here does the
same steps without the detours; the checks are not needed, because the calls of this framework keep the rules.
"""

from pettingzoo.utils.conversions import aec_to_parallel_wrapper
from pettingzoo.utils.wrappers import AssertOutOfBoundsWrapper, OrderEnforcingWrapper

from marl_tune.envs.pettingzoo.api_types import Action, AgentID, Env, ParallelStep

CHECKS_ONLY = (OrderEnforcingWrapper, AssertOutOfBoundsWrapper)
# wrappers that check whether `reset` comes first, and whether actions lie in their space


def without_checks(env: Env) -> Env:
    """The same world without its outermost wrappers that only check.

    A world inside `aec_to_parallel_wrapper` becomes an `UncheckedParallelEnv`.
    """
    if type(env) is aec_to_parallel_wrapper:
        return UncheckedParallelEnv(without_checks(env.aec_env))
    while type(env) in CHECKS_ONLY:
        env = env.env
    return env


class UncheckedParallelEnv(aec_to_parallel_wrapper):
    """A turn-based world behind the parallel API: one step is one action of each agent, one after the other."""

    def step(self, actions: dict[AgentID, Action]) -> ParallelStep:
        """As `aec_to_parallel_wrapper.step`. Raises RuntimeError if an agent is not the next in turn."""
        world = self.aec_env
        rewards: dict[AgentID, float] = dict.fromkeys(world.agents, 0)
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
