"""Turns the settings `search` and `space` into parts of Tune.

Tune's search algorithm proposes the settings of each trial. Tune's scheduler stops trials early or changes them. A
search is a function (sweep, parsed space, the run's folder) -> `SearchPlan`, and a line of
`marl_tune.config.registry.SEARCHES`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from ray.tune.search.sample import Domain

from marl_tune.config.registry import SEARCHES
from marl_tune.config.schema.search import AshaConfig, OptunaConfig, PbtConfig, PopulationConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.search_space import Distribution
from marl_tune.config.trial_budget import asha_max_t
from marl_tune.search.pbt import Pbt, PopulationSettings

STUDY_FILE = "optuna.db"
JSON = "json:"  # prefix of a choice that is a list or mapping, written as JSON
NO_LIMIT = 10**15  # ASHA's max_t where there is none: no trial reaches it, `stop` decides

GridSearch: TypeAlias = dict[str, list[object]]  # what `tune.grid_search` returns


@dataclass
class SearchPlan:
    """The three parts of a search that `tune.run` takes.

    >>> plan = SearchPlan({"algorithm.lr": tune.loguniform(1e-4, 1e-2)}, BasicVariantGenerator(), FIFOScheduler())
    >>> plan.param_space["algorithm.lr"].lower
    0.0001
    """

    param_space: dict[str, Domain | GridSearch]  # dotted key -> how Tune draws it
    algorithm: Searcher | SearchAlgorithm  # proposes the settings of each trial
    scheduler: TrialScheduler  # stops trials early, or changes their settings


def tune_domain(distribution: Distribution) -> Domain | GridSearch:
    """The same distribution as Tune writes it.

    >>> tune_domain(Distribution("grid", (32, 64)))
    {'grid_search': [32, 64]}
    >>> domain = tune_domain(Distribution("uniform", (0.0, 0.5)))
    >>> domain.lower, domain.upper
    (0.0, 0.5)
    """
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
    """The parts of Tune for the sweep's search.

    >>> from marl_tune.config.compose import compose
    >>> (sweep,) = compose(["search=random"])
    >>> parts = plan(sweep, {"algorithm.gamma": Distribution("uniform", (0.9, 1.0))}, Path("results"))
    >>> list(parts.param_space), type(parts.scheduler).__name__
    (['algorithm.gamma'], 'FIFOScheduler')

    Args:
        sweep: the sweep.
        space: its parsed space: dotted key -> distribution.
        folder: the run's folder. Optuna stores its study there.
    """
    return SEARCHES[sweep.search.name].load()(sweep, space, folder)


def seed_everything(seed: int) -> None:
    """Seeds the global generators of Python and numpy, from which some parts of Tune draw."""
    random.seed(seed)
    np.random.seed(seed)


def _variants(sweep: SweepConfig, space: Mapping[str, Distribution]) -> BasicVariantGenerator:
    return BasicVariantGenerator(max_concurrent=sweep.search.max_concurrent or 0, random_state=sweep.seed)


def no_search(sweep: SweepConfig, space: Mapping[str, Distribution], folder: Path) -> SearchPlan:
    """One configuration, num_samples times; the space is not searched."""
    return SearchPlan({}, _variants(sweep, space), FIFOScheduler())


def random_search(sweep: SweepConfig, space: Mapping[str, Distribution], folder: Path) -> SearchPlan:
    """Independent draws from the space."""
    return SearchPlan({k: tune_domain(d) for k, d in space.items()}, _variants(sweep, space), FIFOScheduler())


def grid_search(sweep: SweepConfig, space: Mapping[str, Distribution], folder: Path) -> SearchPlan:
    """Every point of the grid of choices."""
    points = {key: tune.grid_search(list(d.choices)) for key, d in space.items()}
    return SearchPlan(points, _variants(sweep, space), FIFOScheduler())


def _json_optuna_search() -> type[Searcher]:
    """Tune's OptunaSearch, but choices may be lists or mappings.

    Optuna's storage takes plain values only, so these choices are stored as JSON.
    """
    from ray.tune.search.optuna import OptunaSearch

    class JsonOptunaSearch(OptunaSearch):
        def suggest(self, trial_id: str) -> dict[str, object] | None:
            config = super().suggest(trial_id)
            return None if config is None else {key: _decoded(value) for key, value in config.items()}

    return JsonOptunaSearch


def _encoded(distribution: Distribution) -> Distribution:
    args = tuple(JSON + json.dumps(v) if isinstance(v, list | dict) else v for v in distribution.args)
    return distribution if distribution.is_numeric else replace(distribution, args=args)


def _decoded(value: object) -> object:
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
        space=search_class.convert_search_space({k: tune_domain(_encoded(d)) for k, d in space.items()}),
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


def _population_settings(search: PopulationConfig) -> PopulationSettings:
    return {
        "time_attr": "training_iteration",
        "metric": search.metric,
        "mode": search.mode,
        "perturbation_interval": search.perturbation_interval,
        "quantile_fraction": search.quantile_fraction,
    }


def pbt(sweep: SweepConfig, space: Mapping[str, Distribution], folder: Path) -> SearchPlan:
    """Population based training."""
    domains = {key: tune_domain(d) for key, d in space.items()}
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
    domains = {key: tune_domain(d) for key, d in space.items()}
    return SearchPlan(domains, _variants(sweep, space), Pb2(space=space, **_population_settings(search)))
