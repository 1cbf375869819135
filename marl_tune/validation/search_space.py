"""Rules of the search space: no trial that it can draw may break a rule."""

import itertools
import math
from collections.abc import Callable, Iterator

from marl_tune.config.convert import field_types
from marl_tune.config.errors import ConfigError, invalid, unknown
from marl_tune.config.overrides import apply, is_live, trial_keys
from marl_tune.config.registry import SWAPPABLE
from marl_tune.config.schema.search import PopulationConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.search_space import Distribution, parse

FULL_PRODUCT = 256  # combinations up to which all are tried; beyond, each value and each pair of ends


def check_space(sweep: SweepConfig, check_trial: Callable[[SweepConfig], None]) -> None:
    """Refuses a space with an unknown key, a value of the wrong type or out of range, or a refused combination.

    Under PBT and PB2 it also refuses a key that cannot change in a live trial.

    Args:
        check_trial: checks the settings of one trial; raises ConfigError.
    """
    space = parse(sweep.space)
    for key, distribution in space.items():
        _check_key(sweep, key, distribution, space)
        if isinstance(sweep.search, PopulationConfig) and not is_live(sweep, key):
            rule = f"be left out under search={sweep.search.name}: a live trial cannot change it"
            raise invalid(f"space.{key}", rule, str(distribution))
    for overrides in combinations(space):
        try:
            check_trial(apply(sweep, overrides))
        except ConfigError as error:
            raise ConfigError(f"{error}, reached by {_named_entries(str(error), space)}") from error


def combinations(space: dict[str, Distribution]) -> Iterator[dict[str, object]]:
    """Overrides that the space can draw. Ranges are probed at their ends and their middle.

    All combinations where there are at most `FULL_PRODUCT`. Else each value once, with the other keys at their first
    value, and each pair of ranges at their four pairs of ends.
    """
    probes = {key: distribution.probes() for key, distribution in space.items()}
    if math.prod(len(values) for values in probes.values()) <= FULL_PRODUCT:
        for point in itertools.product(*probes.values()):
            yield dict(zip(probes, point, strict=True))
        return
    first = {key: values[0] for key, values in probes.items()}
    for key, values in probes.items():
        for value in values:
            yield first | {key: value}
    ranges = {key: (d.low, d.high) for key, d in space.items() if d.is_numeric}
    for one, other in itertools.combinations(ranges, 2):
        for here, there in itertools.product(ranges[one], ranges[other]):
            yield first | {one: here, other: there}


def _check_key(sweep: SweepConfig, key: str, distribution: Distribution, space: dict[str, Distribution]) -> None:
    """Refuses a key in which trials may not differ; valid are those of the chosen option, or of one in `space`."""
    if key in SWAPPABLE:
        if distribution.is_numeric:
            raise invalid(f"space.{key}", "be a choice or grid of the group's options", str(distribution))
        return
    valid = set(trial_keys(sweep))
    section, _, name = key.partition(".")
    # With the group itself searched, `apply` judges the key under each of the options.
    if key in valid or (section in SWAPPABLE and section in space):
        return
    if _is_setting(sweep, section, name):
        rule = "be left out: it is the same for all trials of a sweep"
        raise invalid(f"space.{key}", rule, str(distribution))
    raise unknown("space: key", key, valid)


def _is_setting(sweep: SweepConfig, section: str, name: str) -> bool:
    """Whether section.name is a key of the sweep at all."""
    value = getattr(sweep, section, None)
    if not name:
        return section in field_types(SweepConfig)
    return hasattr(value, name)


def _named_entries(message: str, space: dict[str, Distribution]) -> str:
    """The entries of the space that an error message names; all of them where it names none."""
    named = [key for key in space if key in message] or list(space)
    return ", ".join(f"space.{key}: {space[key]}" for key in named)
