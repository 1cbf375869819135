"""The settings of the group `search`: one dataclass an option, all with the same first fields."""

import math
import re
from dataclasses import dataclass

from marl_tune.config.errors import invalid
from marl_tune.config.range_checks import above, at_least, one_of, within, word

METRIC = re.compile(r"[A-Za-z0-9_.\-]+(/[A-Za-z0-9_.\-]+)*")  # names joined by "/", as results are flattened


@dataclass
class SearchConfig:
    """What every way to search has; all that `none`, `random` and `grid` need."""

    name: str  # the option of the group
    num_samples: int  # trials, at least 1; under grid, trials of each point of the grid
    max_concurrent: int | None  # trials that run at once, at least 1; null: as many as the cluster has room for
    metric: str  # result that ranks trials, such as return_mean_agent or env_runners/episode_return_mean
    mode: str  # max: more is better | min: less is

    def __post_init__(self) -> None:
        word("search.name", self.name)
        at_least("search.num_samples", self.num_samples, 1)
        at_least("search.max_concurrent", self.max_concurrent, 1)
        if METRIC.fullmatch(self.metric) is None:
            raise invalid("search.metric", "be a result's name such as return_mean_agent", self.metric)
        one_of("search.mode", self.mode, ("max", "min"))


@dataclass
class OptunaConfig(SearchConfig):
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011); the study is kept in the run's folder."""

    n_startup_trials: int  # trials drawn at random before the model is used, at least 0
    multivariate: bool  # model the settings jointly instead of one by one
    constant_liar: bool  # count running trials as bad ones, so that trials at once do not repeat each other

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("search.n_startup_trials", self.n_startup_trials, 0)


@dataclass
class AshaConfig(SearchConfig):
    """Asynchronous successive halving over random trials (Li et al. 2018, https://arxiv.org/abs/1810.05934)."""

    time_attr: str  # unit of the next two: training_iteration | agent_steps | env_steps | time_total_s
    max_t: int | None  # budget of a trial that is never stopped early, at least 1; null: what `stop` allows
    grace_period: int  # budget that every trial gets, from 1 to max_t
    reduction_factor: float  # one trial in so many goes on at each rung, above 1
    brackets: int  # rungs' ladders with different first rungs, at least 1

    def __post_init__(self) -> None:
        super().__post_init__()
        times = ("training_iteration", "agent_steps", "env_steps", "time_total_s")
        one_of("search.time_attr", self.time_attr, times)
        at_least("search.max_t", self.max_t, 1)
        at_least("search.grace_period", self.grace_period, 1)
        above("search.reduction_factor", self.reduction_factor, 1)
        at_least("search.brackets", self.brackets, 1)
        if self.max_t is not None and self.grace_period > self.max_t:
            raise invalid("search.grace_period", f"be at most search.max_t ({self.max_t})", self.grace_period)


@dataclass
class PopulationConfig(SearchConfig):
    """What PBT and PB2 share: the population is search.num_samples trials, the worst copy the best now and then."""

    perturbation_interval: int  # iterations between two exchanges, at least 1
    quantile_fraction: float  # share of the population that copies, and that is copied, (0, 0.5]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_samples < 2:
            raise invalid("search.num_samples", f"be at least 2 under search={self.name}: one trial has none to copy",
                          self.num_samples)  # fmt: skip
        at_least("search.perturbation_interval", self.perturbation_interval, 1)
        if not 0 < self.quantile_fraction <= 0.5:
            raise invalid("search.quantile_fraction", "be above 0 and at most 0.5", self.quantile_fraction)


@dataclass
class PbtConfig(PopulationConfig):
    """Population based training (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846)."""

    resample_probability: float  # chance that an explored value is drawn anew instead of perturbed, [0, 1]
    perturbation_factors: list[float]  # two factors, each above 0, one of which multiplies a perturbed value
    burn_in: int  # iterations before the first exchange, at least 0

    def __post_init__(self) -> None:
        super().__post_init__()
        within("search.resample_probability", self.resample_probability, 0, 1)
        factors = list(self.perturbation_factors)
        if len(factors) != 2 or not all(0 < factor < math.inf for factor in factors):
            raise invalid("search.perturbation_factors", "be two factors above 0", factors)
        at_least("search.burn_in", self.burn_in, 0)


@dataclass
class Pb2Config(PopulationConfig):
    """Population based bandits: PBT that explores by a Gaussian process (Parker-Holder et al. 2020)."""
