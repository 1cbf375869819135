"""Rules over a curriculum, the world and the search."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym

from marl_tune.config.curriculum_stages import of_stage, stage_key, stage_sweeps
from marl_tune.config.errors import ConfigError, invalid
from marl_tune.config.schema.sharing import SharedCriticConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.curriculum import curriculum_of
from marl_tune.modules.schemas import CommunicationFields
from marl_tune.results.metrics import OF_THE_WORLD_ITSELF
from marl_tune.sharing.schemes import CRITIC
from marl_tune.sharing.world_facts import policy_map_of, world_facts

PROPERTIES = ("observation space", "action space", "number of agents")  # of a module: its weights depend on them
Properties = tuple[gym.Space | None, gym.Space | None, int | None]  # None: the module does not depend on it
STAGED_SEARCHES = ("none", "random", "grid", "pbt", "pb2")  # these compare scores of one stage only, or none at all


def check_curriculum(sweep: SweepConfig, check_stage: Callable[[SweepConfig], None]) -> None:
    """Refuses a curriculum with a stage that does not work, or with a stage that policies cannot enter.

    Builds the world of every stage.

    Args:
        sweep: the sweep; without a curriculum nothing is checked.
        check_stage: checks the sweep of one stage; raises ConfigError.
    """
    curriculum = curriculum_of(sweep.env)
    if curriculum is None:
        return
    if sweep.cluster.rollout == "rllib":
        rule = "be batched where env.curriculum is set: RLlib's runner does not tell of each episode"
        raise invalid("cluster.rollout", rule, sweep.cluster.rollout)
    if curriculum.metric.startswith(OF_THE_WORLD_ITSELF) and sweep.evaluation.interval == 0:
        raise invalid("evaluation.interval", f"be at least 1 where env.curriculum.metric is {curriculum.metric}", 0)
    if sweep.search.name not in STAGED_SEARCHES and not sweep.search.metric.startswith(OF_THE_WORLD_ITSELF):
        rule = (
            f"be of the evaluation, such as evaluation/{sweep.search.metric}, under search={sweep.search.name} where "
            "env.curriculum is set: trials in different stages are scored in different worlds"
        )
        raise invalid("search.metric", rule, sweep.search.metric)
    *stages, itself = stage_sweeps(sweep)
    expected = _modules(itself)
    for number, staged in enumerate(stages):
        try:
            check_stage(staged)
            _check_modules(_modules(staged), expected, stage_key(number), sweep.sharing.name)
        except ConfigError as error:
            raise of_stage(error, stage_key(number)) from error


def _modules(sweep: SweepConfig) -> dict[str, Properties]:
    """Module id -> its `PROPERTIES` in the sweep's world."""
    modules = policy_map_of(sweep).modules
    talks = isinstance(sweep.module, CommunicationFields)
    spaces: dict[str, Properties] = {
        module_id: (agents.observation_space, agents.action_space, len(agents.agents) if talks else None)
        for module_id, agents in modules.items()
    }
    if isinstance(sweep.sharing, SharedCriticConfig):
        spaces[CRITIC] = (world_facts(sweep).state_space, None, sum(len(agents.agents) for agents in modules.values()))
    return spaces


def _check_modules(there: dict[str, Properties], expected: dict[str, Properties], key: str, sharing: str) -> None:
    """Refuses a stage whose modules differ from those of the world itself."""
    if there.keys() != expected.keys():
        only = sorted(there.keys() ^ expected.keys())
        named = ", ".join(only[:3]) + (", …" if len(only) > 3 else "")
        raise ConfigError(
            f"{key} must keep the modules of the world itself, so that policies carry over, but adds or lacks {named} "
            f"under sharing={sharing}: let agents share modules (sharing=parameter_sharing or roles)"
        )
    for module_id, spaces in there.items():
        for name, own, other in zip(PROPERTIES, spaces, expected[module_id], strict=True):
            if own != other:
                rule = f"keep the {name} of module {module_id!r}, {other}, so that policies carry over"
                raise ConfigError(f"{key} must {rule}, got {own}")
