"""Population based training (PBT): Tune's schedulers with our own exploration and a record of every exploit.

Tune's PBT decides which trial copies which. `marl_tune.trial` does the copying: the trial keeps its process and takes
over weights and optimizer moments, never settings. This file adds four things:

- Explored values stay inside the range of their distribution.
- Draws come from a seeded generator.
- Trials in different stages of a curriculum are ranked by stage first.
- Listeners are told of each exploit.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, Unpack, cast

import numpy as np
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.schedulers.pbt import _PBTTrialState
from ray.tune.search.sample import Domain

from marl_tune.config.search_space import Distribution
from marl_tune.results.callback import SweepCallback
from marl_tune.results.metrics import flat_metrics, ranking_stage


class PopulationSettings(TypedDict, total=False):
    """Arguments of Tune's PBT and PB2, by Tune's names."""

    time_attr: str  # key of a result that counts time
    metric: str  # name of the result that ranks trials
    mode: str  # max | min
    perturbation_interval: int  # between two exchanges of a trial, in units of time_attr
    quantile_fraction: float  # share of the population that copies, and that is copied, (0, 0.5]


class PbtSettings(PopulationSettings, total=False):
    """Arguments of Tune's PBT alone."""

    burn_in_period: int  # no trial is exchanged before, in units of time_attr


class Population(PopulationBasedTraining):
    """The common part of `Pbt` and `Pb2`.

    It tells listeners of exploits, lets a resumed trial finish its interval, and ranks trials by the stage of their
    curriculum before their score.
    """

    listeners: list[SweepCallback]

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """Tune's hook. A resumed trial continues its interval; Tune would exchange it at its first result."""
        with warnings.catch_warnings():
            # Tune warns of a small num_to_keep: its PBT may need a checkpoint that was deleted. Ours does not.
            warnings.filterwarnings("ignore", message=".*num_to_keep.*")
            super().on_trial_add(tune_controller, trial)
        saved = trial.run_metadata.checkpoint_manager.latest_checkpoint_result
        if saved is not None:
            self._trial_state[trial].last_perturbation_time = saved.metrics[self._time_attr]

    def _save_trial_state(
        self, state: _PBTTrialState, time: int, result: dict[str, object], trial: Trial
    ) -> dict[str, object]:
        state.stage = ranking_stage(flat_metrics(result), self._metric)
        return super()._save_trial_state(state, time, result, trial)

    def _quantiles(self) -> tuple[list[Trial], list[Trial]]:
        """The worst and the best trials, as Tune computes them, but ordered by stage first and by score second."""
        states = self._trial_state.values()
        scored = [state for state in states if state.last_score is not None and not math.isnan(state.last_score)]
        order = sorted(scored, key=lambda state: (getattr(state, "stage", 0), state.last_score))
        scores = [state.last_score for state in order]
        for place, state in enumerate(order):  # Tune reads the place as the score
            state.last_score = float(place)
        try:
            return super()._quantiles()
        finally:
            for state, score in zip(order, scores, strict=True):
                state.last_score = score

    def _exploit(self, tune_controller: TuneController, trial: Trial, trial_to_clone: Trial) -> None:
        """Copies the newest checkpoint of the donor `trial_to_clone`.

        Tune would copy the checkpoint of the last exchange. It is old by then, and `checkpoint.num_to_keep` may delete
        it before the clone runs (https://github.com/ray-project/ray/issues/53831, 8441). So the clone gets its own
        copy, which stays until its next exploit.
        """
        donor_state = self._trial_state[trial_to_clone]
        newest = _newest_checkpoint(trial_to_clone, donor_state)
        if newest is None:
            return
        own = Path(trial.storage.trial_fs_path) / "exploited"
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(newest.checkpoint.path, own)
        donor_state.last_checkpoint, donor_state.last_result = Checkpoint(str(own)), newest.metrics
        old = dict(trial.config)
        iteration = int(self._trial_state[trial].last_result["training_iteration"])
        super()._exploit(tune_controller, trial, trial_to_clone)
        searched = self._hyperparam_mutations
        donor_state.last_checkpoint = newest.checkpoint
        for listener in self.listeners:
            listener.on_exploit(
                trial_id=trial.trial_id,
                donor_id=trial_to_clone.trial_id,
                iteration=iteration,
                old={key: old.get(key) for key in searched},
                new={key: trial.config.get(key) for key in searched},
            )


def _newest_checkpoint(trial: Trial, state: _PBTTrialState) -> _TrainingResult | None:
    """The newest checkpoint of a trial that still exists; None where there is none.

    It is the last one that Tune knows of, or the one that PBT saved a moment ago.
    """
    known = [trial.run_metadata.checkpoint_manager.latest_checkpoint_result]
    if state.last_checkpoint is not None:
        known.append(_TrainingResult(checkpoint=state.last_checkpoint, metrics=state.last_result))
    existing = [result for result in known if result is not None and Path(result.checkpoint.path).is_dir()]
    return max(existing, key=lambda result: result.metrics["training_iteration"], default=None)


class Pbt(Population):
    """Tune's PBT (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846) over dotted keys.

    >>> from ray.tune import loguniform
    >>> space = {"algorithm.lr": Distribution("loguniform", (1e-5, 1e-3))}
    >>> pbt = Pbt(space=space, domains={"algorithm.lr": loguniform(1e-5, 1e-3)}, seed=0, resample_probability=0.0,
    ...           perturbation_factors=(0.8, 1.2), metric="return_mean_agent", mode="max")
    >>> pbt.explored({"algorithm.lr": 5e-4})["algorithm.lr"] in (5e-4 * 0.8, 5e-4 * 1.2)
    True

    Args:
        space: dotted key -> the distribution whose range an explored value stays in.
        domains: dotted key -> the same distribution as Tune's domain, from which new values are drawn.
        seed: of the explored values.
        resample_probability: chance that a value is drawn anew, [0, 1]; otherwise it is perturbed.
        perturbation_factors: two factors above 0. A perturbed number is multiplied by one of them; a perturbed choice
            moves to a neighbour.
        settings: arguments of Tune's PBT.
    """

    def __init__(
        self,
        *,
        space: Mapping[str, Distribution],
        domains: Mapping[str, Domain],
        seed: int,
        resample_probability: float,
        perturbation_factors: tuple[float, float],
        **settings: Unpack[PbtSettings],
    ) -> None:
        super().__init__(
            hyperparam_mutations=dict(domains),
            resample_probability=resample_probability,
            perturbation_factors=perturbation_factors,
            log_config=False,  # lineage.csv is the record
            **settings,
        )
        self.space, self.listeners = dict(space), []
        self._rng = np.random.default_rng(seed)

    def explored(self, config: Mapping[str, object]) -> dict[str, object]:
        """The donor's `config` with every searched value drawn anew or perturbed."""
        new = dict(config)
        for key, distribution in self.space.items():
            if self._rng.random() < self._resample_probability:
                new[key] = self._hyperparam_mutations[key].sample(random_state=self._rng)
            else:
                factor = self._perturbation_factors[self._rng.integers(2)]
                new[key] = perturb(distribution, new[key], factor)
        return new

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, object], dict[str, str]]:
        return self.explored(trial_to_clone.config), {}


def perturb(distribution: Distribution, value: object, factor: float) -> object:
    """`value` times `factor`, kept inside the range of the distribution; a choice moves to its neighbour.

    An integer that rounding would not change moves by 1. A choice moves up for a factor above 1, else down.

    >>> perturb(Distribution("uniform", (0.0, 1.0)), 0.9, 1.2)
    1.0
    >>> perturb(Distribution("randint", (1, 10)), 3, 1.1)
    4
    >>> perturb(Distribution("choice", ("relu", "tanh", "silu")), "tanh", 0.8)
    'relu'
    """
    if not distribution.is_numeric:
        place = distribution.choices.index(value) + (1 if factor > 1 else -1)
        return distribution.choices[min(max(place, 0), len(distribution.choices) - 1)]
    number = cast(float, value)
    moved = number * factor
    if distribution.kind == "quniform":
        step = cast(float, distribution.args[2])
        moved = round(moved / step) * step
    elif distribution.kind == "randint":
        moved = round(moved) if round(moved) != number else number + (1 if factor > 1 else -1)
    moved = distribution.clip(moved)
    return int(moved) if distribution.kind == "randint" else float(moved)
