"""Rules of modules whose agents send messages to each other: what they need of world, sharing scheme and cluster."""

from __future__ import annotations

from marl_tune.config.errors import invalid
from marl_tune.config.role_settings import role_modules
from marl_tune.config.schema.self_play import VersusConfig
from marl_tune.config.schema.sharing import HierarchicalConfig, SharingConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.modules.schemas import CommunicationFields
from marl_tune.sharing.world_facts import policy_map_of, world_facts


def check_communication(sweep: SweepConfig) -> None:
    """Refuses settings under which agents that communicate would be separated, and a range where positions are unknown.

    Modules that do not communicate are not checked.
    """
    module = sweep.module
    if not isinstance(module, CommunicationFields):
        return
    name = f"module={module.name}"
    if sweep.cluster.rollout == "rllib":
        rule = f"be batched under {name}: RLlib's runner does not keep the agents of a step together"
        raise invalid("cluster.rollout", rule, sweep.cluster.rollout)
    if sweep.cluster.num_learners > 1:
        rule = f"be at most 1 under {name}: RLlib cuts episodes to share them out, and so would part agents that talk"
        raise invalid("cluster.num_learners", rule, sweep.cluster.num_learners)
    why = _reason_to_refuse(sweep.sharing)
    if why is not None:
        rule = f"be parameter_sharing, roles or shared_critic under {name}: {why}"
        raise invalid("sharing", rule, sweep.sharing.name)
    _check_teams(sweep, name)


def _reason_to_refuse(sharing: SharingConfig) -> str | None:
    """Why agents of one module are not together in every step under this scheme; None where they are."""
    if isinstance(sharing, VersusConfig):
        return "whom a module acts for is drawn anew for every game"
    if isinstance(sharing, HierarchicalConfig):
        return "managers wait between their decisions"
    return "messages are learned by those who share a module" if sharing.name == "independent" else None


def _check_teams(sweep: SweepConfig, name: str) -> None:
    """Refuses a world or a sharing scheme in which the agents of a group cannot all hear each other in every step."""
    policy_map = policy_map_of(sweep)
    if world_facts(sweep).takes_turns:
        rule = f"be a world in which all agents act in all steps under {name}: who is gone or waits says nothing"
        raise invalid("env", rule, sweep.env.name)
    for group in policy_map.groups:
        if len({policy_map.choices[agent] for agent in group.agents}) > 1:
            rule = f"give the agents of group {group.name} one module under {name}: only these hear each other"
            raise invalid("sharing", rule, sweep.sharing.name)
    largest = max(len(agents.agents) for agents in policy_map.modules.values())
    if largest < 2:
        raise invalid("env", f"have two agents with one module under {name}: nobody talks to itself", sweep.env.name)
    minibatch = sweep.algorithm.minibatch
    if minibatch is not None and minibatch < largest:
        rule = f"hold at least one step of the {largest} agents that talk to each other under {name}"
        raise invalid("algorithm.minibatch_size", rule, minibatch)
    of_role = role_modules(sweep)
    for module_id, agents in policy_map.modules.items():
        reach = of_role.get(module_id, sweep.module).comm_range
        positions = {group.positions for group in policy_map.groups if group.name in agents.groups}
        if reach is not None and (None in positions or len(positions) > 1):
            key = f"sharing.roles.{module_id}.module" if module_id in of_role else "module"
            rule = f"be null where the observations of {module_id} do not hold the agent's own position"
            raise invalid(f"{key}.comm_range", rule, reach)
