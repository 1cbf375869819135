"""Population based training whose mutations take effect and leave a trace: Tune's schedulers, with our exploration
and lineage.

Tune's PBT decides who copies whom. What a copy means is in `marl_tune.trial`: the copy keeps its process and takes
over weights and moments, never settings. Here: explored values stay inside their range, draws come from a seeded
generator, trials in different stages of a curriculum are ranked by stage first, and each exploit is told to listeners.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint
from ray.tune.schedulers import PopulationBasedTraining

from marl_tune.config.search_space import Distribution
from marl_tune.results.callback import SweepCallback
from marl_tune.results.metrics import flat_metrics, ranking_stage


class Population:
    """What both schedulers add to Tune's: they tell of exploits, let a resumed trial run its interval, and rank trials
    in different stages of a curriculum."""

    listeners: list[SweepCallback]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        with warnings.catch_warnings():
            # Of a small num_to_keep, with which Tune's own PBT loses a checkpoint that is still needed; see _exploit.
            warnings.filterwarnings("ignore", message=".*num_to_keep.*")
            super().on_trial_add(tune_controller, trial)  # type: ignore[misc]
        # A resumed trial goes on from its last checkpoint; Tune would exchange it at its first result.
        saved = trial.run_metadata.checkpoint_manager.latest_checkpoint_result
        if saved is not None:
            age = saved.metrics[self._time_attr]  # type: ignore[attr-defined]
            self._trial_state[trial].last_perturbation_time = age  # type: ignore[attr-defined]

    def _save_trial_state(self, state: Any, time: int, result: dict[str, Any], trial: Any) -> Any:
        state.stage = ranking_stage(flat_metrics(result), self._metric)  # type: ignore[attr-defined]
        return super()._save_trial_state(state, time, result, trial)  # type: ignore[misc]

    def _quantiles(self) -> tuple[list[Any], list[Any]]:
        """Tune's, by stage and score: of two trials the one in the later stage is the better, whatever their scores."""
        states = self._trial_state.values()  # type: ignore[attr-defined]
        scored = [state for state in states if state.last_score is not None and not math.isnan(state.last_score)]
        order = sorted(scored, key=lambda state: (getattr(state, "stage", 0), state.last_score))
        scores = [state.last_score for state in order]
        for place, state in enumerate(order):
            state.last_score = float(place)
        try:
            return super()._quantiles()  # type: ignore[misc]
        finally:
            for state, score in zip(order, scores, strict=True):
                state.last_score = score

    def _exploit(self, tune_controller: Any, trial: Any, trial_to_clone: Any) -> None:
        """Copies the donor's newest checkpoint.

        Tune takes the one of the last exchange, which is stale by then and, with `checkpoint.num_to_keep`, may be
        deleted before the clone gets a slot (https://github.com/ray-project/ray/issues/53831, 8441). The clone gets a
        copy of its own, which stays until its next exploit.
        """
        newest = _newest_checkpoint(trial_to_clone, self._trial_state[trial_to_clone])  # type: ignore[attr-defined]
        if newest is None:
            return
        donor_state = self._trial_state[trial_to_clone]  # type: ignore[attr-defined]
        own = Path(trial.storage.trial_fs_path) / "exploited"
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(newest.checkpoint.path, own)
        donor_state.last_checkpoint, donor_state.last_result = Checkpoint(str(own)), newest.metrics
        old = dict(trial.config)
        iteration = int(self._trial_state[trial].last_result["training_iteration"])  # type: ignore[attr-defined]
        super()._exploit(tune_controller, trial, trial_to_clone)  # type: ignore[misc]
        searched = self._hyperparam_mutations  # type: ignore[attr-defined]
        donor_state.last_checkpoint = newest.checkpoint
        for listener in self.listeners:
            listener.on_exploit(
                trial_id=trial.trial_id,
                donor_id=trial_to_clone.trial_id,
                iteration=iteration,
                old={key: old.get(key) for key in searched},
                new={key: trial.config.get(key) for key in searched},
            )


def _newest_checkpoint(trial: Any, state: Any) -> _TrainingResult | None:
    """The newest checkpoint of a trial that is still there: its last one, or one that was saved a moment ago."""
    known = [trial.run_metadata.checkpoint_manager.latest_checkpoint_result]
    if state.last_checkpoint is not None:
        known.append(_TrainingResult(checkpoint=state.last_checkpoint, metrics=state.last_result))
    there = [result for result in known if result is not None and Path(result.checkpoint.path).is_dir()]
    return max(there, key=lambda result: result.metrics["training_iteration"], default=None)


class Pbt(Population, PopulationBasedTraining):
    """Tune's PBT (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846) over dotted keys.

    Args:
        space: dotted key -> the distribution it is kept within.
        domains: the same as Tune's domains, to draw from.
        seed: of the explored values.
        resample_probability: chance that a value is drawn anew.
        perturbation_factors: one of which multiplies a number that is not drawn anew; a choice moves to a neighbour.
        settings: Tune's own (metric, mode, time_attr, perturbation_interval, quantile_fraction, burn_in_period).
    """

    def __init__(
        self,
        *,
        space: Mapping[str, Distribution],
        domains: Mapping[str, Any],
        seed: int,
        resample_probability: float,
        perturbation_factors: tuple[float, float],
        **settings: Any,
    ):
        super().__init__(
            hyperparam_mutations=dict(domains),
            resample_probability=resample_probability,
            perturbation_factors=perturbation_factors,
            log_config=False,  # lineage.csv is the record
            **settings,
        )
        self.space, self.listeners = dict(space), []
        self._rng = np.random.default_rng(seed)

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, str]]:
        config = dict(trial_to_clone.config)
        for key, distribution in self.space.items():
            if self._rng.random() < self._resample_probability:
                config[key] = self._hyperparam_mutations[key].sample(random_state=self._rng)
            else:
                factor = self._perturbation_factors[self._rng.integers(2)]
                config[key] = perturb(distribution, config[key], factor)
        return config, {}


def perturb(distribution: Distribution, value: Any, factor: float) -> Any:
    """`value` times `factor`, kept within its range; a choice moves to its neighbour on that side.

    An integer that rounding would leave where it is moves by one.
    """
    if not distribution.is_numeric:
        place = distribution.choices.index(value) + (1 if factor > 1 else -1)
        return distribution.choices[min(max(place, 0), len(distribution.choices) - 1)]
    moved = value * factor
    if distribution.kind == "quniform":
        step = distribution.args[2]
        moved = round(moved / step) * step
    elif distribution.kind == "randint":
        moved = round(moved) if round(moved) != value else value + (1 if factor > 1 else -1)
    moved = distribution.clip(moved)
    return int(moved) if distribution.kind == "randint" else float(moved)
