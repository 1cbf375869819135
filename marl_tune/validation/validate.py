"""Rules over several settings, checked once before anything starts.

Each check raises `ConfigError` for the first rule that is broken, with the key, the value and the rule.
"""

import math
import os
from pathlib import Path

import gymnasium as gym

from marl_tune.cluster.machine import check_cluster, machine_resources
from marl_tune.config.errors import ConfigError, invalid
from marl_tune.config.role_settings import role_modules
from marl_tune.config.schema.search import AshaConfig, PopulationConfig
from marl_tune.config.schema.sharing import HierarchicalConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.search_space import parse
from marl_tune.config.trial_budget import asha_max_t, counted_batch, last_agent_step, max_iterations, num_copies
from marl_tune.envs.hierarchy import FEATURES
from marl_tune.modules.schemas import ImageFields, SharedEncoderConfig, check_image
from marl_tune.results.metrics import COUNT, FREQUENCY
from marl_tune.sharing.world_facts import policy_map_of, world_facts
from marl_tune.validation.communication import check_communication
from marl_tune.validation.curriculum import check_curriculum
from marl_tune.validation.plug_ins import check_plug_ins
from marl_tune.validation.search_space import check_space
from marl_tune.validation.self_play import check_self_play
from marl_tune.validation.sharing import check_central_critic, check_roles


def validate(sweep: SweepConfig) -> None:
    """Refuses a sweep that cannot work. Writes nothing."""
    check_plug_ins(sweep)
    check_trial(sweep)
    check_search(sweep)
    check_space(sweep, check_trial)
    check_ranking(sweep)
    check_folders(sweep)
    if sweep.cluster.name == "local":  # a cluster that is joined can be asked only once it has been
        check_cluster(sweep, machine_resources(), "this machine")


def check_trial(sweep: SweepConfig) -> None:
    """Checks the settings of one trial; called for every kind of trial that the search can draw."""
    check_roles(sweep)
    check_central_critic(sweep)
    check_self_play(sweep)
    algorithm, cluster = sweep.algorithm, sweep.cluster
    for key in ("lr_end_factor", "entropy_end_factor"):
        if getattr(algorithm, key) < 1 and last_agent_step(sweep) is None:
            rule = "be 1 where neither stop.agent_steps nor stop.iterations says when a trial ends"
            raise invalid(f"algorithm.{key}", rule, getattr(algorithm, key))
    per_learner = algorithm.train_batch_size // max(cluster.num_learners, 1)
    if algorithm.minibatch is not None and algorithm.minibatch > per_learner:
        rule = f"be at most algorithm.train_batch_size a learner ({per_learner})"
        raise invalid("algorithm.minibatch_size", rule, algorithm.minibatch)
    agents, takes_turns, least = _agents(sweep)
    a_step = math.ceil(round(num_copies(sweep) * agents, 6))
    if algorithm.train_batch_size < a_step:
        rule = (
            f"be at least {a_step}, one step of every agent (cluster.num_envs_per_env_runner x "
            f"cluster.num_env_runners x {agents:g} agents)"
        )
        raise invalid("algorithm.train_batch_size", rule, algorithm.train_batch_size)
    counted = counted_batch(sweep, agents, least)
    if takes_turns and algorithm.minibatch is not None and algorithm.minibatch > counted:
        what = f"steps of the {least} agents that act in each" if least else "steps of the world"
        rule = f"be at most {counted}, the {what} a learner: RLlib counts these where not all act in all steps"
        raise invalid("algorithm.minibatch_size", rule, algorithm.minibatch)
    if getattr(sweep.env, "workers", 0) > cluster.num_envs_per_env_runner:
        rule = f"be at most cluster.num_envs_per_env_runner ({cluster.num_envs_per_env_runner})"
        raise invalid("env.workers", rule, sweep.env.workers)
    if cluster.rollout == "rllib" and hasattr(sweep.module, "max_seq_len"):
        rule = f"be batched for a module with a memory (module={sweep.module.name})"
        raise invalid("cluster.rollout", rule, cluster.rollout)
    if isinstance(sweep.module, SharedEncoderConfig) and cluster.num_learners > 1:
        rule = "be at most 1 under module=shared_encoder, whose policies are trained by one optimizer"
        raise invalid("cluster.num_learners", rule, cluster.num_learners)
    check_communication(sweep)
    _check_convolutions(sweep)
    if cluster.rollout == "rllib" and isinstance(sweep.sharing, HierarchicalConfig):
        rule = "be batched under sharing=hierarchical: RLlib's runner counts the managers' rewards in its returns"
        raise invalid("cluster.rollout", rule, cluster.rollout)
    sequence = getattr(sweep.module, "max_seq_len", 1)
    if algorithm.minibatch is not None and algorithm.minibatch < sequence:
        rule = f"hold at least one sequence of module.max_seq_len ({sequence}) agent-steps"
        raise invalid("algorithm.minibatch_size", rule, algorithm.minibatch)
    check_curriculum(sweep, check_trial)


def _agents(sweep: SweepConfig) -> tuple[float, bool, int]:
    """(agents of one copy that act in a step, whether agents take turns, then how many act in each step at least).

    The world is built to find out, unless its settings tell.
    """
    if hasattr(sweep.env, "n_agents") and not isinstance(sweep.sharing, HierarchicalConfig):
        return sweep.env.n_agents, False, 0
    facts = world_facts(sweep)
    return facts.agents_per_step, facts.takes_turns, facts.least_acting


def _check_convolutions(sweep: SweepConfig) -> None:
    """Refuses explicit paddings of convolutions with which a kernel has no input; automatic paddings always work."""
    of_role = role_modules(sweep)
    modules = [module for module in (sweep.module, *of_role.values()) if isinstance(module, ImageFields)]
    if not any(len(layer) > 3 for module in modules for layer in module.conv_filters):
        return
    for module_id, agents in policy_map_of(sweep).modules.items():
        module, space = of_role.get(module_id, sweep.module), agents.observation_space
        image = space.get(FEATURES, space) if isinstance(space, gym.spaces.Dict) else space
        if isinstance(module, ImageFields) and len(image.shape or ()) == 3:
            try:
                check_image(image.shape[0], image.shape[1], module.conv_filters)
            except ValueError as error:
                raise ConfigError(str(error)) from error


def check_search(sweep: SweepConfig) -> None:
    """Checks the search: the distributions that it can draw from, and the budget that it needs."""
    search, space = sweep.search, parse(sweep.space)
    if search.name != "none" and not space:
        example = "'+space={algorithm.lr:{loguniform:[1e-5,1e-3]}}'"
        raise ConfigError(f"space must have an entry under search={search.name}, got {{}}: add one, such as {example}")
    for key, distribution in space.items():
        if search.name == "grid" and distribution.is_numeric:
            raise invalid(f"space.{key}", "be a grid or choice under search=grid", str(distribution))
        if search.name in ("optuna", "pbt", "pb2") and distribution.kind == "grid":
            raise invalid(f"space.{key}", f"be a choice, not a grid, under search={search.name}", str(distribution))
        if search.name == "pb2" and distribution.kind not in ("uniform", "loguniform"):
            raise invalid(f"space.{key}", "be uniform or loguniform under search=pb2", str(distribution))
    if isinstance(search, AshaConfig):
        _check_asha(sweep)
    limit = max_iterations(sweep)
    if isinstance(search, PopulationConfig) and limit is not None and search.perturbation_interval >= limit:
        rule = f"be below the {limit} iterations that stop gives a trial, or nothing is ever exchanged"
        raise invalid("search.perturbation_interval", rule, search.perturbation_interval)


def check_ranking(sweep: SweepConfig) -> None:
    """Checks what ranks trials: the metric is measured, checkpoints are kept, held-out seeds are not trained on."""
    if sweep.search.metric.startswith("evaluation/") and sweep.evaluation.interval == 0:
        raise invalid("evaluation.interval", f"be at least 1 where search.metric is {sweep.search.metric}", 0)
    if sweep.search.metric in (COUNT, FREQUENCY):
        if sweep.breakthroughs is None:
            rule = "be something else where breakthroughs is null: none are counted"
            raise invalid("search.metric", rule, sweep.search.metric)
        if sweep.cluster.rollout == "rllib":
            rule = "be something else under cluster.rollout=rllib, which does not tell of each episode"
            raise invalid("search.metric", rule, sweep.search.metric)
    if sweep.checkpoint.frequency == 0 and not sweep.checkpoint.at_end:
        raise invalid("checkpoint.at_end", "be true where checkpoint.frequency is 0: no policy would be kept", False)
    evaluation = range(sweep.evaluation.seed, sweep.evaluation.seed + sweep.evaluation.episodes)
    selection = range(sweep.selection.seed, sweep.selection.seed + sweep.selection.episodes)
    for key, seeds in (("evaluation.seed", evaluation), ("selection.seed", selection)):
        if sweep.seed in seeds:
            rule = f"keep its {len(seeds)} held-out seeds clear of the training seed ({sweep.seed})"
            raise invalid(key, rule, seeds.start)
    if max(evaluation.start, selection.start) < min(evaluation.stop, selection.stop):
        others = f"{evaluation.start} to {evaluation.stop - 1}"
        rule = f"keep its {len(selection)} seeds clear of the evaluation's ({others})"
        raise invalid("selection.seed", rule, selection.start)


def check_folders(sweep: SweepConfig) -> None:
    """Checks the folders: results_dir can be written to, and resume is the folder of a run."""
    there = Path(sweep.results_dir).expanduser().absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise invalid("results_dir", "be a folder that can be written to", sweep.results_dir)
    if sweep.resume is None:
        return
    run = Path(sweep.resume).expanduser()
    if not run.is_dir():
        raise invalid("resume", "be the folder of a run; it does not exist", sweep.resume)
    if not (run / "config.yaml").is_file():
        raise invalid("resume", "be the folder of a run, with its config.yaml", sweep.resume)


def _check_asha(sweep: SweepConfig) -> None:
    search, limit = sweep.search, asha_max_t(sweep)
    assert isinstance(search, AshaConfig)
    if limit is None:
        rule = f"be set where stop has no bound on {search.time_attr}"
        raise invalid("search.max_t", rule, search.max_t)
    if search.grace_period > limit:
        rule = f"be at most the {limit} that search.max_t or stop gives a trial ({search.time_attr})"
        raise invalid("search.grace_period", rule, search.grace_period)
