"""PB2, apart from PBT because it needs scikit-learn, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers.pb2 import PB2

from marl_tune.config.search_space import Distribution
from marl_tune.results.metrics import flat_metrics, ranking_stage
from marl_tune.search.pbt import Population


class Pb2(Population, PB2):
    """Tune's PB2 (Parker-Holder et al. 2020, https://arxiv.org/abs/2002.02518): a Gaussian process explores.

    Its model learns from how a trial's score changes from one result to the next. In another stage of a curriculum the
    score is of another world: the rows of the stage that was left are put under another name, so that no change is
    taken across.
    """

    def __init__(self, *, space: Mapping[str, Distribution], **settings: Any):
        bounds = {key: [float(d.low), float(d.high)] for key, d in space.items()}
        super().__init__(hyperparam_bounds=bounds, log_config=False, **settings)
        self.listeners = []
        self._stages: dict[str, int] = {}  # trial, as the model names it -> stage of its newest rows

    def _save_trial_state(self, state: Any, time: int, result: dict[str, Any], trial: Any) -> Any:
        self._begin_stage(trial, ranking_stage(flat_metrics(result), self._metric))
        return super()._save_trial_state(state, time, result, trial)

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self._begin_stage(trial, self._stages.get(str(trial_to_clone), 0))
        return super()._get_new_config(trial, trial_to_clone)

    def _begin_stage(self, trial: Any, stage: int) -> None:
        name, left = str(trial), self._stages.get(str(trial), 0)
        self._stages[name] = stage
        if stage != left and len(self.data):
            self.data.loc[self.data["Trial"] == name, "Trial"] = f"{name} in stage {left}"
