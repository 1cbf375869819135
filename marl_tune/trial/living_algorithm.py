"""The living RLlib Algorithm of a trial: built once, then changed in place as far as its settings allow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS

from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.cluster import startup_patches
from marl_tune.cluster.algorithm_folder import without_folder
from marl_tune.config import overrides
from marl_tune.config.curriculum_stages import stage_sweeps
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.sampling.episode_metrics import forget_world


class LivingAlgorithm:
    """An Algorithm, the settings that it has now, and the stage of the curriculum that it samples.

    Args:
        sweep: the trial's settings.
        stage: number of the curriculum's stage, from 0; 0 without a curriculum.
    """

    def __init__(self, sweep: SweepConfig, stage: int):
        torch.set_num_threads(sweep.cluster.torch_threads)
        staged = stage_sweeps(sweep)[stage]
        self.sweep = sweep
        config = algorithm_config(staged)
        config.algo_class = without_folder(config.algo_class)
        with startup_patches.building(compiles=sweep.cluster.torch_compile):
            self.algorithm: Algorithm = config.build_algo()
        self._world = staged.env  # settings of the world that is sampled

    @property
    def agents(self) -> list[str]:
        """Ids of the agents whose returns count, in the world that is sampled."""
        return self.algorithm.env_runner_group.local_env_runner.policy_map.counted

    def change(self, sweep: SweepConfig, stage: int) -> None:
        """Takes over settings that differ in live keys only, and samples the world of the given stage."""
        self.sweep = sweep
        config = self.enter_stage(stage)
        self.algorithm.learner_group.foreach_learner(lambda learner: learner.apply_settings(config))

    def enter_stage(self, stage: int) -> AlgorithmConfig:
        """Samples the world of a stage from now on; policies, optimizer states and counters stay.

        Returns:
            The algorithm's new config.
        """
        staged = stage_sweeps(self.sweep)[stage]
        config = algorithm_config(staged)
        config.freeze()
        new_world = staged.env != self._world
        self.algorithm.config = config
        self.algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.apply_settings(config, new_world))
        if new_world:
            forget_world(self.algorithm.metrics, ENV_RUNNER_RESULTS)
        self._world = staged.env
        return config

    def stop(self) -> None:
        """Releases the algorithm's actors, if it has any."""
        self.algorithm.stop()


def only_live_changes(old: SweepConfig, new: SweepConfig) -> bool:
    """Whether a living algorithm of `old` can become one of `new`: all that differs is live, or the seed."""
    sections = ("env", "module", "sharing", "algorithm", "cluster")
    before, after = ({s: dataclasses.asdict(getattr(sweep, s)) for s in sections} for sweep in (old, new))
    return all(overrides.is_live(old, key) for s in sections for key in _differing(before[s], after[s], s))


def _differing(before: object, after: object, key: str) -> Iterator[str]:
    """Dotted keys of the values that differ; of sections that have other keys, the section's own."""
    if not isinstance(before, dict) or not isinstance(after, dict) or before.keys() != after.keys():
        if before != after:
            yield key
        return
    for name, value in before.items():
        yield from _differing(value, after[name], f"{key}.{name}")
