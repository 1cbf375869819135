"""Where envs, modules and configuration meet: a SweepConfig becomes a world, modules, an AlgorithmConfig."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

import modules
from envs.hierarchy import MANAGER
from envs.world import DirectionTokens, World, agents_per_step
from marl_tune.config.role_settings import LEARNING, role_algorithms, role_modules
from marl_tune.config.schema.algorithm import critic_settings
from marl_tune.config.schema.self_play import VersusConfig
from marl_tune.config.schema.sharing import HierarchicalConfig, SharedCriticConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.trial_budget import counted_batch, fragment_length
from marl_tune.config.trial_resources import runner_cpus
from marl_tune.critic_loss import CriticSettings
from marl_tune.env_runner import WITH_STATE, BatchedEnvRunner
from marl_tune.hierarchy import make_world
from marl_tune.learner import (
    CENTRAL_CRITIC,
    COMPILE,
    MODULE_SETTINGS,
    OPTIMIZER,
    PRECISION,
    REWARD_SCALE,
    MarlPPOLearner,
)
from marl_tune.policy_map import PolicyMap
from marl_tune.rllib_runner import RllibEnvRunner
from marl_tune.sharing import CRITIC, module_of_agents
from marl_tune.sides import learners_of, matchmaker
from modules.central_critic import CentralCritic

RUNNERS = {"batched": BatchedEnvRunner, "rllib": RllibEnvRunner}


def build_world(sweep: SweepConfig, num_envs: int) -> World:
    """B copies of the sweep's world, with what its sharing scheme adds to it."""
    return make_world(sweep, num_envs)


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
        group = next(g for g in policy_map.groups if g.name == agents.groups[0])
        settings = of_role.get(module_id if group.counted else MANAGER, sweep.module)
        configs[module_id] = dataclasses.asdict(settings) | {
            "tokens": _tokens(group.tokens),
            "positions": None if group.positions is None else list(group.positions),
            "team_size": len(agents.agents),
        }
        if isinstance(sweep.sharing, SharedCriticConfig):
            configs[module_id]["central_critic"] = True
    return configs


def critic_specs(sweep: SweepConfig, world: World) -> dict[str, RLModuleSpec]:
    """The module that values for all agents, by its id; empty where each module has a critic of its own."""
    if not isinstance(sweep.sharing, SharedCriticConfig):
        return {}
    agents = [agent for group in world.groups for agent in group.agents]
    spec = RLModuleSpec(
        module_class=CentralCritic,
        observation_space=world.state_space,
        action_space=gym.spaces.Box(-math.inf, math.inf, (len(agents),)),  # it acts for nobody: its values
        learner_only=True,
        model_config=dataclasses.asdict(sweep.module) | {"agents": agents},
    )
    return {CRITIC: spec}


def _tokens(tokens: DirectionTokens | None) -> dict[str, Any] | None:
    if tokens is None:
        return None
    return {"indices": list(tokens.indices), "directions": [list(d) for d in tokens.directions]}


def module_specs(sweep: SweepConfig, policy_map: PolicyMap) -> MultiRLModuleSpec:
    """RLlib's specification of every module of the sweep that acts."""
    return MultiRLModuleSpec(
        multi_rl_module_class=modules.module_class(sweep.module.name).team_class,
        rl_module_specs={
            module_id: RLModuleSpec(
                module_class=modules.module_class(config["name"]),
                observation_space=policy_map.modules[module_id].observation_space,
                action_space=policy_map.modules[module_id].action_space,
                model_config=config,
            )
            for module_id, config in module_configs(sweep, policy_map).items()
        },
    )


def algorithm_config(sweep: SweepConfig) -> PPOConfig:
    """The AlgorithmConfig of one trial; every number in it comes from `sweep`."""
    with build_world(sweep, 1) as world:
        policy_map = build_policy_map(sweep, world)
        num_agents, takes_turns, least = agents_per_step(world), world.acting is not None, world.least_acting
        critic = critic_specs(sweep, world)
    cluster = sweep.cluster
    module_ids = sorted(policy_map.modules)
    specs = module_specs(sweep, policy_map)
    specs.add_modules(critic)
    config = (
        PPOConfig()
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
            learner_class=MarlPPOLearner,
            learner_config_dict=_learner_settings(sweep, specs),
            num_learners=cluster.num_learners,
            num_cpus_per_learner=cluster.num_cpus_per_learner,
            num_gpus_per_learner=cluster.num_gpus_per_learner,
            add_default_connectors_to_learner_pipeline=False,
        )
        .multi_agent(
            policies=set(module_ids),
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
    config.training(**_training(sweep))
    config.multi_agent(algorithm_config_overrides_per_module=_of_modules(sweep, policy_map, config))
    if takes_turns:
        # A fragment is an iteration, however many decisions it holds: RLlib would sample another one for those missing.
        config.multi_agent(count_steps_by="agent_steps" if least else "env_steps")
        config.train_batch_size_per_learner = counted_batch(sweep, num_agents, least)
    return config


def _trained(sweep: SweepConfig, module_ids: Sequence[str]) -> list[str] | None:
    """The modules that learn, where some do not; None: all, a critic for all agents too."""
    trained = [module_id for module_id in module_ids if trains(sweep, module_id)]
    return None if len(trained) == len(module_ids) else trained


def trains(sweep: SweepConfig, module_id: str) -> bool:
    """Whether a module learns: all do, but frozen opponents, and those of roles that do not."""
    if isinstance(sweep.sharing, VersusConfig):
        return module_id in learners_of(sweep.sharing)
    role = sweep.sharing.roles.get(module_id)
    return role is None or role.trains


def _of_modules(sweep: SweepConfig, policy_map: PolicyMap, config: PPOConfig) -> dict[str, dict[str, Any]]:
    """Module id -> what is its own of the algorithm's settings, by RLlib's names: of roles, and of managers."""
    of_roles = {
        role: {
            **{name: getattr(algorithm, name) for name in LEARNING if name != REWARD_SCALE},
            "learner_config_dict": config.learner_config_dict | {REWARD_SCALE: algorithm.reward_scale},
        }
        for role, algorithm in role_algorithms(sweep).items()
    }
    if not isinstance(sweep.sharing, HierarchicalConfig) or sweep.sharing.manager_gamma is None:
        return of_roles
    managers = [group.name for group in policy_map.groups if not group.counted]
    return of_roles | {manager: {"gamma": sweep.sharing.manager_gamma} for manager in managers}


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


def _learner_settings(sweep: SweepConfig, specs: MultiRLModuleSpec) -> dict[str, Any]:
    """What RLlib has no name for: see the keys in `marl_tune.learner`."""
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
