"""Where envs, modules and configuration meet: a SweepConfig becomes a world, modules, an AlgorithmConfig."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

from marl_tune.config.registry import ALGORITHMS
from marl_tune.config.role_settings import LEARNING, role_algorithms
from marl_tune.config.schema.algorithm import critic_settings
from marl_tune.config.schema.sharing import HierarchicalConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.trial_budget import counted_batch, fragment_length
from marl_tune.config.trial_resources import runner_cpus
from marl_tune.learning.central_critic import CriticSettings
from marl_tune.learning.live_settings import CENTRAL_CRITIC, COMPILE, OPTIMIZER, PRECISION, REWARD_SCALE
from marl_tune.sampling.env_runner import WITH_STATE, BatchedEnvRunner
from marl_tune.sampling.rllib_env_runner import RllibEnvRunner
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.module_specs import MODULE_SETTINGS, build_policy_map, critic_specs, module_specs, trains
from marl_tune.sharing.policy_map import PolicyMap
from marl_tune.sharing.schemes import CRITIC
from marl_tune.sharing.world_facts import world_facts

RUNNERS = {"batched": BatchedEnvRunner, "rllib": RllibEnvRunner}


def algorithm_config(sweep: SweepConfig) -> AlgorithmConfig:
    """The AlgorithmConfig of one trial; every number in it comes from `sweep`."""
    facts = world_facts(sweep)
    policy_map, critic = build_policy_map(sweep, facts), critic_specs(sweep, facts)
    num_agents, takes_turns, least = facts.agents_per_step, facts.takes_turns, facts.least_acting
    cluster = sweep.cluster
    module_ids = sorted(policy_map.modules)
    specs = module_specs(sweep, policy_map)
    specs.add_modules(critic)
    learner = learner_class(sweep.algorithm.name)
    config = (
        learner.rllib_config()
        .environment(
            env=sweep.env.name,
            env_config={
                "world": partial(build_world, sweep),
                "policy_map": partial(build_policy_map, sweep),
                WITH_STATE: bool(critic),
            },
            disable_env_checking=True,
        )
        .env_runners(
            env_runner_cls=RUNNERS[cluster.rollout],
            num_env_runners=cluster.num_env_runners,
            num_envs_per_env_runner=cluster.num_envs_per_env_runner,
            num_cpus_per_env_runner=runner_cpus(sweep),
            num_gpus_per_env_runner=cluster.num_gpus_per_env_runner,
            rollout_fragment_length=fragment_length(sweep, num_agents),
            create_env_on_local_worker=True,
        )
        .learners(
            learner_class=learner,
            learner_config_dict=_learner_settings(sweep, specs),
            num_learners=cluster.num_learners,
            num_cpus_per_learner=cluster.num_cpus_per_learner,
            num_gpus_per_learner=cluster.num_gpus_per_learner,
            add_default_connectors_to_learner_pipeline=False,
        )
        .multi_agent(
            policies=module_ids,
            policies_to_train=_trained(sweep, module_ids),
            policy_mapping_fn=partial(_module_of, policy_map.choices),
            count_steps_by="agent_steps",
        )
        .rl_module(rl_module_spec=specs)
        .callbacks(on_env_runners_recreated=_renew_runners)
        .debugging(seed=sweep.seed, log_level="ERROR", log_sys_usage=False)
        .reporting(
            # The last two episodes of each copy: an older window would hide from PBT what its last exchange did.
            metrics_num_episodes_for_smoothing=2 * cluster.num_envs_per_env_runner,
            min_time_s_per_iteration=0,
        )
    )
    config.training(**_training(sweep, learner.training(sweep.algorithm)))
    config.multi_agent(algorithm_config_overrides_per_module=_of_modules(sweep, policy_map, config))
    if takes_turns:
        _count_fragments(config, sweep, num_agents, least)
    return config


def _count_fragments(config: AlgorithmConfig, sweep: SweepConfig, num_agents: float, least: int) -> None:
    """Makes a fragment an iteration, however many decisions it holds: RLlib would sample another for those missing."""
    config.multi_agent(count_steps_by="agent_steps" if least else "env_steps")
    config.train_batch_size_per_learner = counted_batch(sweep, num_agents, least)


def learner_class(name: str) -> Any:
    """The learner of an option of `algorithm`."""
    return ALGORITHMS[name].load()


def _trained(sweep: SweepConfig, module_ids: Sequence[str]) -> list[str] | None:
    """The modules that learn, where some do not; None: all, a critic for all agents too."""
    trained = [module_id for module_id in module_ids if trains(sweep, module_id)]
    return None if len(trained) == len(module_ids) else trained


def _of_modules(sweep: SweepConfig, policy_map: PolicyMap, config: AlgorithmConfig) -> dict[str, dict[str, Any]]:
    """Module id -> what is its own of the algorithm's settings, by RLlib's names: of roles, and of managers."""
    of_roles = {
        role: {
            **{
                name: getattr(algorithm, name) for name in LEARNING if hasattr(algorithm, name) and name != REWARD_SCALE
            },
            "learner_config_dict": config.learner_config_dict | {REWARD_SCALE: algorithm.reward_scale},
        }
        for role, algorithm in role_algorithms(sweep).items()
    }
    if not isinstance(sweep.sharing, HierarchicalConfig) or sweep.sharing.manager_gamma is None:
        return of_roles
    managers = [group.name for group in policy_map.groups if not group.counted]
    return of_roles | {manager: {"gamma": sweep.sharing.manager_gamma} for manager in managers}


def _training(sweep: SweepConfig, own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the loss and the batches by RLlib's names; `own` are those of the algorithm alone."""
    same = ("lr", "gamma", "lambda_", "entropy_coeff", "vf_loss_coeff", "use_critic", "grad_clip", "grad_clip_by")
    return {
        **{name: getattr(sweep.algorithm, name) for name in same},
        **own,
        "train_batch_size_per_learner": sweep.algorithm.train_batch_size // max(1, sweep.cluster.num_learners),
    }


def _learner_settings(sweep: SweepConfig, specs: MultiRLModuleSpec) -> dict[str, Any]:
    """What RLlib has no name for: see the keys in `marl_tune.learning.live_settings`."""
    algorithm = sweep.algorithm
    critic = CriticSettings(**critic_settings(algorithm)) if CRITIC in specs.rl_module_specs else None
    return {
        OPTIMIZER: {
            "betas": [algorithm.adam_beta1, algorithm.adam_beta2],
            "eps": algorithm.adam_eps,
            "weight_decay": algorithm.weight_decay,
        },
        REWARD_SCALE: algorithm.reward_scale,
        CENTRAL_CRITIC: critic,
        MODULE_SETTINGS: {module_id: spec.model_config for module_id, spec in specs.rl_module_specs.items()},
        PRECISION: sweep.cluster.precision,
        COMPILE: sweep.cluster.torch_compile,
    }


def _renew_runners(algorithm: Any, env_runner_group: Any, env_runner_indices: list[int], **_: Any) -> None:
    """Gives runners that were started again the present settings: Ray makes them from those of their first start."""
    config = algorithm.config
    env_runner_group.foreach_env_runner(
        lambda runner: runner.apply_settings(config, new_world=True),
        local_env_runner=False,
        remote_worker_ids=env_runner_indices,
    )


def _module_of(choices: dict[str, tuple[str, ...]], agent_id: str, *_: Any, **__: Any) -> str:
    return choices[agent_id][0]
