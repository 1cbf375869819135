"""Where envs, modules and configuration meet: a SweepConfig becomes a world, modules, an AlgorithmConfig."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

import envs
import modules
from envs.world import DirectionTokens, World, agents_per_step
from marl_tune.budget import fragment_length, world_steps_per_learner
from marl_tune.env_runner import BatchedEnvRunner
from marl_tune.learner import COMPILE, MODULE_SETTINGS, OPTIMIZER, PRECISION, REWARD_SCALE, MarlPPOLearner
from marl_tune.policy_map import PolicyMap
from marl_tune.resources import runner_cpus
from marl_tune.rllib_runner import RllibEnvRunner
from marl_tune.roles import role_modules
from marl_tune.schema import SweepConfig
from marl_tune.schema_self_play import VersusConfig
from marl_tune.sharing import module_of_agents
from marl_tune.sides import learners_of, matchmaker

RUNNERS = {"batched": BatchedEnvRunner, "rllib": RllibEnvRunner}


def build_world(sweep: SweepConfig, num_envs: int) -> World:
    """B copies of the sweep's world."""
    return envs.make_world(sweep.env, num_envs)


def build_policy_map(sweep: SweepConfig, world: World) -> PolicyMap:
    """Who controls whom in this world under the sweep's sharing scheme."""
    matches = matchmaker(world.groups, sweep.sharing)
    return PolicyMap(
        world.groups, module_of_agents(world.groups, sweep.sharing), None if matches is None else matches.draw, matches
    )


def module_configs(sweep: SweepConfig, policy_map: PolicyMap) -> dict[str, dict[str, Any]]:
    """Module id -> model config: settings, its role's changes, what the world says of its observations."""
    of_role, configs = role_modules(sweep), {}
    for module_id, agents in policy_map.modules.items():
        settings = of_role.get(module_id, sweep.module)
        tokens = next(g.tokens for g in policy_map.groups if g.name == agents.groups[0])
        configs[module_id] = dataclasses.asdict(settings) | {"tokens": _tokens(tokens)}
    return configs


def _tokens(tokens: DirectionTokens | None) -> dict[str, Any] | None:
    if tokens is None:
        return None
    return {"indices": list(tokens.indices), "directions": [list(d) for d in tokens.directions]}


def module_specs(sweep: SweepConfig, policy_map: PolicyMap) -> MultiRLModuleSpec:
    """RLlib's specification of every module of the sweep."""
    return MultiRLModuleSpec(
        rl_module_specs={
            module_id: RLModuleSpec(
                module_class=modules.module_class(config["name"]),
                observation_space=policy_map.modules[module_id].observation_space,
                action_space=policy_map.modules[module_id].action_space,
                model_config=config,
            )
            for module_id, config in module_configs(sweep, policy_map).items()
        }
    )


def algorithm_config(sweep: SweepConfig) -> PPOConfig:
    """The AlgorithmConfig of one trial; every number in it comes from `sweep`."""
    with build_world(sweep, 1) as world:
        policy_map = build_policy_map(sweep, world)
        num_agents, takes_turns = agents_per_step(world), world.acting is not None
    cluster = sweep.cluster
    module_ids = sorted(policy_map.modules)
    config = (
        PPOConfig()
        .environment(
            env=sweep.env.name,
            env_config={"world": partial(build_world, sweep), "policy_map": partial(build_policy_map, sweep)},
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
            learner_class=MarlPPOLearner,
            learner_config_dict=_learner_settings(sweep, module_configs(sweep, policy_map)),
            num_learners=cluster.num_learners,
            num_cpus_per_learner=cluster.num_cpus_per_learner,
            num_gpus_per_learner=cluster.num_gpus_per_learner,
            add_default_connectors_to_learner_pipeline=False,
        )
        .multi_agent(
            policies=set(module_ids),
            policy_mapping_fn=partial(_module_of, policy_map.choices),
            count_steps_by="agent_steps",
        )
        .rl_module(rl_module_spec=module_specs(sweep, policy_map))
        .debugging(seed=sweep.seed, log_level="ERROR", log_sys_usage=False)
        .reporting(
            # The last two episodes of each copy: an older window would hide from PBT what its last exchange did.
            metrics_num_episodes_for_smoothing=2 * cluster.num_envs_per_env_runner,
            min_time_s_per_iteration=0,
        )
    )
    config.training(**_training(sweep))
    if isinstance(sweep.sharing, VersusConfig):
        config.multi_agent(policies_to_train=list(learners_of(sweep.sharing)))
    if takes_turns:
        # A fragment is an iteration, however many decisions it holds: RLlib would sample another one for those missing.
        config.multi_agent(count_steps_by="env_steps")
        config.train_batch_size_per_learner = world_steps_per_learner(sweep, num_agents)
    return config


def _training(sweep: SweepConfig) -> dict[str, Any]:
    """The settings of the loss and the batches, by RLlib's names."""
    algorithm = sweep.algorithm
    same = (
        "lr",
        "gamma",
        "lambda_",
        "clip_param",
        "entropy_coeff",
        "vf_loss_coeff",
        "use_critic",
        "use_kl_loss",
        "kl_coeff",
        "kl_target",
        "num_epochs",
        "minibatch_size",
        "shuffle_batch_per_epoch",
        "grad_clip",
        "grad_clip_by",
    )
    return {name: getattr(algorithm, name) for name in same} | {
        "vf_clip_param": math.inf if algorithm.vf_clip_param is None else algorithm.vf_clip_param,
        "train_batch_size_per_learner": algorithm.train_batch_size // max(1, sweep.cluster.num_learners),
    }


def _learner_settings(sweep: SweepConfig, of_modules: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What RLlib has no name for: see the keys in `marl_tune.learner`."""
    algorithm = sweep.algorithm
    return {
        OPTIMIZER: {
            "betas": [algorithm.adam_beta1, algorithm.adam_beta2],
            "eps": algorithm.adam_eps,
            "weight_decay": algorithm.weight_decay,
        },
        REWARD_SCALE: algorithm.reward_scale,
        MODULE_SETTINGS: of_modules,
        PRECISION: sweep.cluster.precision,
        COMPILE: sweep.cluster.torch_compile,
    }


def _module_of(choices: dict[str, tuple[str, ...]], agent_id: str, *_: Any, **__: Any) -> str:
    return choices[agent_id][0]
