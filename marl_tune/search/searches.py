"""From `search` and `space` to Tune: a search algorithm proposes settings, a scheduler stops or changes trials.

A search is a function (sweep, parsed space, the run's folder) -> `SearchPlan`, and a line of
`marl_tune.config.registry.SEARCHES`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher

from marl_tune.config.registry import SEARCHES
from marl_tune.config.schema.search import AshaConfig, OptunaConfig, PbtConfig, PopulationConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.search_space import Distribution
from marl_tune.config.trial_budget import asha_max_t
from marl_tune.search.pbt import Pbt

STUDY_FILE = "optuna.db"
JSON = "json:"  # marks a choice that is no plain value
NO_LIMIT = 10**15  # an age that no trial reaches: `stop` decides


@dataclass
class SearchPlan:
    """Tune's three parts of a search."""

    param_space: dict[str, Any]
    algorithm: Searcher | SearchAlgorithm
    scheduler: TrialScheduler


def domain(distribution: Distribution) -> Any:
    """Tune's domain of one distribution."""
    make = {
        "loguniform": tune.loguniform,
        "uniform": tune.uniform,
        "quniform": tune.quniform,
        "randint": tune.randint,
    }
    if distribution.kind in make:
        return make[distribution.kind](*distribution.args)
    values = list(distribution.choices)
    return tune.grid_search(values) if distribution.kind == "grid" else tune.choice(values)


def plan(sweep: SweepConfig, space: Mapping[str, Distribution], folder: Path) -> SearchPlan:
    """Tune's parts for the sweep's search.

    Args:
        sweep: the sweep.
        space: its parsed space.
        folder: the run's folder, where a study is stored.
    """
    return SEARCHES[sweep.search.name].load()(sweep, space, folder)


def seed_everything(seed: int) -> None:
    """Tune draws from the global generators, here and there."""
    random.seed(seed)
    np.random.seed(seed)


def _variants(sweep: SweepConfig, space: Mapping[str, Distribution]) -> BasicVariantGenerator:
    return BasicVariantGenerator(max_concurrent=sweep.search.max_concurrent or 0, random_state=sweep.seed)


def no_search(sweep: SweepConfig, space: Mapping[str, Distribution], folder: Path) -> SearchPlan:
    """One configuration, num_samples times; the space is not searched."""
    return SearchPlan({}, _variants(sweep, space), FIFOScheduler())


def random_search(sweep: SweepConfig, space: Mapping[str, Distribution], folder: Path) -> SearchPlan:
    """Independent draws from the space."""
    return SearchPlan({k: domain(d) for k, d in space.items()}, _variants(sweep, space), FIFOScheduler())


def grid_search(sweep: SweepConfig, space: Mapping[str, Distribution], folder: Path) -> SearchPlan:
    """Every point of the grid of choices."""
    points = {key: tune.grid_search(list(d.choices)) for key, d in space.items()}
    return SearchPlan(points, _variants(sweep, space), FIFOScheduler())


def _json_optuna_search() -> Any:
    """OptunaSearch whose choices may be lists: Optuna's storage holds plain values, so the others travel as JSON."""
    from ray.tune.search.optuna import OptunaSearch

    class JsonOptunaSearch(OptunaSearch):
        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            config = super().suggest(trial_id)
            return None if config is None else {key: _decoded(value) for key, value in config.items()}

    return JsonOptunaSearch


def _encoded(distribution: Distribution) -> Distribution:
    args = tuple(JSON + json.dumps(v) if isinstance(v, list | dict) else v for v in distribution.args)
    return distribution if distribution.is_numeric else replace(distribution, args=args)


def _decoded(value: Any) -> Any:
    return json.loads(value[len(JSON) :]) if isinstance(value, str) and value.startswith(JSON) else value


def optuna_search(sweep: SweepConfig, space: Mapping[str, Distribution], folder: Path) -> SearchPlan:
    """Optuna's tree-structured Parzen estimator."""
    import optuna
    from ray.tune.search import ConcurrencyLimiter

    search_class = _json_optuna_search()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = sweep.search
    assert isinstance(search, OptunaConfig)
    sampler = optuna.samplers.TPESampler(
        seed=sweep.seed,
        n_startup_trials=search.n_startup_trials,
        multivariate=search.multivariate,
        constant_liar=search.constant_liar,
    )
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / STUDY_FILE}")
    searcher = search_class(
        space=search_class.convert_search_space({k: domain(_encoded(d)) for k, d in space.items()}),
        metric=search.metric,
        mode=search.mode,
        sampler=sampler,
        study_name=sweep.name,
        storage=storage,
    )
    limited = ConcurrencyLimiter(searcher, search.max_concurrent) if search.max_concurrent else searcher
    return SearchPlan({}, limited, FIFOScheduler())


def asha(sweep: SweepConfig, space: Mapping[str, Distribution], folder: Path) -> SearchPlan:
    """Random draws, the worse of which are stopped early."""
    search = sweep.search
    assert isinstance(search, AshaConfig)
    scheduler = AsyncHyperBandScheduler(
        time_attr=search.time_attr,
        metric=search.metric,
        mode=search.mode,
        max_t=asha_max_t(sweep) or NO_LIMIT,
        grace_period=search.grace_period,
        reduction_factor=search.reduction_factor,
        brackets=search.brackets,
    )
    return SearchPlan(random_search(sweep, space, folder).param_space, _variants(sweep, space), scheduler)


def _population_settings(search: PopulationConfig) -> dict[str, Any]:
    return {
        "time_attr": "training_iteration",
        "metric": search.metric,
        "mode": search.mode,
        "perturbation_interval": search.perturbation_interval,
        "quantile_fraction": search.quantile_fraction,
    }


def pbt(sweep: SweepConfig, space: Mapping[str, Distribution], folder: Path) -> SearchPlan:
    """Population based training."""
    domains = {key: domain(d) for key, d in space.items()}
    search = sweep.search
    assert isinstance(search, PbtConfig)
    first, second = search.perturbation_factors
    scheduler = Pbt(
        space=space,
        domains=domains,
        seed=sweep.seed,
        resample_probability=search.resample_probability,
        perturbation_factors=(first, second),
        burn_in_period=search.burn_in,
        **_population_settings(search),
    )
    return SearchPlan(domains, _variants(sweep, space), scheduler)


def pb2(sweep: SweepConfig, space: Mapping[str, Distribution], folder: Path) -> SearchPlan:
    """Population based bandits."""
    from marl_tune.search.pb2 import Pb2

    search = sweep.search
    assert isinstance(search, PopulationConfig)
    domains = {key: domain(d) for key, d in space.items()}
    return SearchPlan(domains, _variants(sweep, space), Pb2(space=space, **_population_settings(search)))
