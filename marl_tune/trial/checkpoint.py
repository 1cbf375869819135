"""A checkpoint on disk: three files, which can be read without Ray.

config.json   the trial's SweepConfig, with its overrides
policy.pt     module id -> weights: enough to play
training.pt   optimizer moments, counters, the state of sampling: enough to continue training

The files name no class or module of marl_tune: they contain plain types, arrays, tensors, and what libraries pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_OPTIMIZER, COMPONENT_RL_MODULE
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from marl_tune.config import convert
from marl_tune.config.errors import invalid
from marl_tune.config.schema.sweep import CheckpointConfig, SweepConfig
from marl_tune.results.checkpoint_files import load_weights, save_whole
from marl_tune.results.checkpoint_folder import CONFIG, POLICY, TRAINING, find_policy
from marl_tune.sampling.env_runner import BatchedEnvRunner
from marl_tune.self_play.shared_pool import Weights


def retention(rules: CheckpointConfig) -> tune.CheckpointConfig:
    """When Tune saves a trial, and which checkpoints it keeps."""
    return tune.CheckpointConfig(
        num_to_keep=rules.num_to_keep, checkpoint_frequency=rules.frequency, checkpoint_at_end=rules.at_end
    )


def save(folder: Path, sweep: SweepConfig, algorithm: Algorithm, counters: Mapping[str, object]) -> None:
    """Writes the checkpoint of a living algorithm.

    Args:
        counters: the trial's id, its step counts and the states of its followers, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = algorithm.learner_group.get_state(components=COMPONENT_LEARNER)[COMPONENT_LEARNER]
    (folder / CONFIG).write_text(json.dumps(convert.to_dict(sweep), indent=2) + "\n")
    save_whole(state[COMPONENT_RL_MODULE], folder / POLICY)
    training = {
        "optimizer": state[COMPONENT_OPTIMIZER],
        "rollouts": algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.get_rollout_state()),
        "counters": counters,
    }
    save_whole(training, folder / TRAINING)


def load(folder: Path, training: dict[str, Any], algorithm: Algorithm, trial_id: str) -> None:
    """Puts a checkpoint into a living algorithm, which samples the world of the checkpoint.

    Sampling continues where it stopped if the checkpoint is the trial's own. A copy of another trial starts new
    episodes.

    Args:
        training: content of training.pt.
    """
    state = {COMPONENT_RL_MODULE: load_weights(folder), COMPONENT_OPTIMIZER: training["optimizer"], WEIGHTS_SEQ_NO: 0}
    algorithm.learner_group.set_state({COMPONENT_LEARNER: state})
    rollouts, go_on = training["rollouts"], training["counters"]["trial"] == trial_id

    acting = _acting_weights(algorithm)

    def restore(runner: BatchedEnvRunner) -> None:
        # Without WEIGHTS_SEQ_NO, which the learner has not advanced: a runner ignores weights with a number it knows.
        runner.set_state({COMPONENT_RL_MODULE: acting})
        runner.set_rollout_state(rollouts[(runner.worker_index or 0) % len(rollouts)], go_on)

    algorithm.env_runner_group.foreach_env_runner(restore)


def begin_with_others(sweep: SweepConfig, algorithm: Algorithm) -> None:
    """Loads the weights of other runs, with which roles start, into an algorithm that has just been built.

    Raises:
        ConfigError: a role's checkpoint has no module for it, or one that does not fit.
    """
    weights = {
        name: _weights_of(name, role.checkpoint) for name, role in sweep.sharing.roles.items() if role.checkpoint
    }
    for module_id, state in weights.items():
        try:
            algorithm.learner_group.set_state({COMPONENT_LEARNER: {COMPONENT_RL_MODULE: {module_id: state}}})
        except RuntimeError as error:  # torch's: keys or shapes differ
            rule = f"hold a module that fits the role ({str(error).splitlines()[-1].strip()})"
            path = sweep.sharing.roles[module_id].checkpoint
            raise invalid(f"sharing.roles.{module_id}.checkpoint", rule, path) from error
    if weights:
        acting = _acting_weights(algorithm)
        algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.set_state({COMPONENT_RL_MODULE: acting}))


def _weights_of(role: str, path: str) -> Weights:
    """Weights from another run's checkpoint: those of the module with the role's name, or of the only module."""
    modules = load_weights(find_policy(path, f"sharing.roles.{role}.checkpoint"))
    if role not in modules and len(modules) != 1:
        rule = f"hold a module {role}, or one only (it has {', '.join(modules)})"
        raise invalid(f"sharing.roles.{role}.checkpoint", rule, path)
    return cast(Weights, modules.get(role) or next(iter(modules.values())))


def _acting_weights(algorithm: Algorithm) -> dict[str, Weights]:
    """Module id -> the weights that an env runner needs."""
    rl_module = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
    state = algorithm.learner_group.get_state(components=rl_module, inference_only=True)
    return state[COMPONENT_LEARNER][COMPONENT_RL_MODULE]
