"""Small policies and fragments with which parts of `sampling` and `learning` are tried in tests and examples."""

from __future__ import annotations

from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs import default_config, make_world
from marl_tune.envs.world import World
from marl_tune.modules.testing import build
from marl_tune.sampling.policies import Policies
from marl_tune.sampling.rollout import Rollout
from marl_tune.sharing.policy_map import PolicyMap


def small_policies(world: World, module: str = "mlp") -> Policies:
    """Returns policies of small untrained modules, one for each agent group, whose id is the name of the group.

    The weights are the same each time. torch's random generator is seeded with 0.

    >>> list(small_policies(make_world(default_config("mpe/simple_tag"))).modules)
    ['adversary', 'agent']

    Args:
        world: the environment.
        module: stem of the module, a key of `marl_tune.modules.MODULES`.
    """
    modules = {
        group.name: build(module, group.observation_space, group.action_space, team_size=len(group.agents))
        for group in world.groups
    }
    module_of = {agent: group.name for group in world.groups for agent in group.agents}
    return Policies(modules, PolicyMap(world.groups, module_of), world.num_envs)


def small_fragment(module: str = "mlp", with_state: bool = False) -> tuple[Policies, list[SingleAgentEpisode]]:
    """Returns the policies of an ant colony, and the pieces of a fragment: 5 steps of 3 copies with 2 ants each.

    >>> policies, pieces = small_fragment()
    >>> list(policies.modules), len(pieces), len(pieces[0])
    (['ants'], 6, 5)

    Args:
        module: stem of the module. The training sequences of recurrent modules have 2 steps.
        with_state: whether the pieces carry the global state.
    """
    world = make_world(default_config("ant_colony", n_agents=2), num_envs=3)
    policies = small_policies(world, module)
    rollout = Rollout(world, policies, dict.fromkeys(policies.states, 2), seed=0, with_state=with_state)
    return policies, rollout.sample(num_steps=5)
