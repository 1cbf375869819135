"""Small policies with which parts of this package are tried in tests and examples."""

from __future__ import annotations

from marl_tune.envs.world import World
from marl_tune.modules.testing import build
from marl_tune.sampling.policies import Policies
from marl_tune.sharing.policy_map import PolicyMap


def small_policies(world: World, module: str = "mlp") -> Policies:
    """Returns policies of small untrained modules, one for each agent group, whose id is the name of the group.

    The weights are the same each time. torch's random generator is seeded with 0.

    >>> from marl_tune.envs import default_config, make_world
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
