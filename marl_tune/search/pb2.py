"""PB2. It has a file of its own because it needs scikit-learn, whose import takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from ray.tune.experiment import Trial
from ray.tune.schedulers.pb2 import PB2
from ray.tune.schedulers.pbt import _PBTTrialState

from marl_tune.config.search_space import Distribution
from marl_tune.results.metrics import flat_metrics, ranking_stage
from marl_tune.search.pbt import Population, PopulationSettings


class Pb2(Population, PB2):
    """Tune's PB2 (Parker-Holder et al. 2020, https://arxiv.org/abs/2002.02518): a Gaussian process explores.

    The model learns from the change of a trial's score between two results. Scores of two stages of a curriculum
    belong to two environments. So at a new stage the trial's old rows get another name in the model's table, and no
    change is computed across stages.

    >>> space = {"algorithm.lr": Distribution("uniform", (1e-5, 1e-3))}
    >>> pb2 = Pb2(space=space, metric="return_mean_agent", mode="max", perturbation_interval=5)
    >>> pb2.bounds
    {'algorithm.lr': [1e-05, 0.001]}

    Args:
        space: dotted key -> distribution of numbers; the model explores between its bounds.
        settings: arguments of Tune's PB2.
    """

    def __init__(self, *, space: Mapping[str, Distribution], **settings: Unpack[PopulationSettings]) -> None:
        self.bounds = {key: [float(d.low), float(d.high)] for key, d in space.items()}
        super().__init__(hyperparam_bounds=self.bounds, log_config=False, **settings)
        self.listeners = []
        self._stages: dict[str, int] = {}  # trial, as the model names it -> stage of its newest rows

    def _save_trial_state(
        self, state: _PBTTrialState, time: int, result: dict[str, object], trial: Trial
    ) -> dict[str, object]:
        self._begin_stage(trial, ranking_stage(flat_metrics(result), self._metric))
        return super()._save_trial_state(state, time, result, trial)

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, object], dict[str, object]]:
        self._begin_stage(trial, self._stages.get(str(trial_to_clone), 0))
        return super()._get_new_config(trial, trial_to_clone)

    def _begin_stage(self, trial: Trial, stage: int) -> None:
        """Renames the trial's rows in the model's table where `stage` is another one than theirs."""
        name, previous = str(trial), self._stages.get(str(trial), 0)
        self._stages[name] = stage
        if stage != previous and len(self.data):
            self.data.loc[self.data["Trial"] == name, "Trial"] = f"{name} in stage {previous}"
