"""The search space: dotted key -> `{distribution: arguments}`. It is parsed and checked without Ray or Optuna.

    algorithm.lr: {loguniform: [1e-5, 1e-3]}     module.hidden_dims: {choice: [[64, 64], [256, 256]]}
    env.n_agents: {randint: [5, 20]}             module: {grid: [mlp, plasticity]}

| kind | arguments | draws |
|---|---|---|
| uniform | [low, high] | a float |
| loguniform | [low, high], low > 0 | a float, uniform in its logarithm |
| quniform | [low, high, step] | a multiple of step |
| randint | [low, high] | a whole number from low to high - 1 |
| choice | [value, ...] | one of the values |
| grid | [value, ...] | each value in turn |
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeGuard, TypeVar, cast

from marl_tune.config.errors import invalid, unknown

T = TypeVar("T")
KINDS = ("uniform", "loguniform", "quniform", "randint", "choice", "grid")


@dataclass(frozen=True)
class Distribution:
    """How one setting is drawn."""

    kind: str  # one of `KINDS`
    args: tuple[object, ...]  # see the table above

    @property
    def is_numeric(self) -> bool:
        """Whether it draws numbers from a range; else it draws one of `choices`."""
        return self.kind not in ("choice", "grid")

    @property
    def choices(self) -> tuple[object, ...]:
        """The values of a choice or grid; empty for a range."""
        return () if self.is_numeric else self.args

    @property
    def low(self) -> float:
        """The lowest value that can be drawn from a range."""
        return self._numbers[0]

    @property
    def high(self) -> float:
        """The highest value that can be drawn from a range; of randint, its upper end less 1."""
        high = self._numbers[1]
        return high - 1 if self.kind == "randint" else high

    @property
    def _numbers(self) -> tuple[float, ...]:
        """The arguments of a range."""
        return cast("tuple[float, ...]", self.args)

    def clip(self, value: T) -> T | float:
        """The nearest value in the range; of choices, the value itself. PBT can move a value out of its range."""
        return min(max(cast(float, value), self.low), self.high) if self.is_numeric else value

    def probes(self) -> tuple[object, ...]:
        """Values to check before a sweep starts: all choices, or both ends of a range and a value between them."""
        if not self.is_numeric:
            return self.args
        if self.kind == "quniform":
            return self.low, self.low + self._numbers[2], self.high
        if self.kind == "randint":
            return self.low, self.high
        between = self.low + (self.high - self.low) * 0.6180339887  # no whole number, so that int keys are refused
        return self.low, between, self.high

    def __str__(self) -> str:
        return f"{{{self.kind}: {list(self.args)}}}"


def normalise(space: Mapping[str, object]) -> dict[str, object]:
    """The space with one entry for each dotted key. Nested keys are joined, and entries that are null are removed.

    A file has `algorithm.lr: {uniform: [0, 1]}`. On the command line, `+space.algorithm.lr.uniform=[0,1]` makes a
    nested key, which replaces the file's entry, and `+space.algorithm.lr=null` removes the key.
    """
    flat: dict[str, object] = {}
    for key, entry in _entries(space, ""):
        if entry is None or entry == {}:
            flat.pop(key, None)
        else:
            flat[key] = entry
    return flat


def parse(space: Mapping[str, object]) -> dict[str, Distribution]:
    """Dotted key -> distribution, of a normalised space. Raises `ConfigError` for a wrong entry."""
    return {key: parse_entry(f"space.{key}", entry) for key, entry in space.items()}


def parse_entry(key: str, entry: object) -> Distribution:
    """One entry `{distribution: arguments}`. Raises `ConfigError`, whose message names `key`, for a wrong one."""
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise invalid(key, "be one distribution, such as {uniform: [0.1, 0.3]}", entry)
    kind, args = next(iter(entry.items()))
    if kind not in KINDS:
        raise unknown(f"{key}: distribution", str(kind), KINDS)
    if not isinstance(args, list | tuple):
        raise invalid(f"{key}.{kind}", "be a list", args)
    distribution = Distribution(str(kind), tuple(args))
    (_check_range if distribution.is_numeric else _check_choices)(f"{key}.{kind}", distribution)
    return distribution


def grid_points(space: Mapping[str, Distribution], choices_too: bool) -> int:
    """Points of the grid: the product of the sizes of all grids and, with `choices_too` (search=grid), choices."""
    sizes = [len(d.args) for d in space.values() if d.kind == "grid" or (choices_too and d.kind == "choice")]
    return math.prod(sizes)


def trial_count(search: str, num_samples: int, space: Mapping[str, Distribution]) -> int:
    """Trials of the whole sweep: num_samples times the points of the grid; under search=none, num_samples."""
    if search == "none":
        return num_samples
    return num_samples * grid_points(space, choices_too=search == "grid")


def _check_range(key: str, distribution: Distribution) -> None:
    kind, args = distribution.kind, [arg for arg in distribution.args if _is_number(arg)]
    length = 3 if kind == "quniform" else 2
    if len(args) != length or len(args) != len(distribution.args):
        rule = f"be {length} numbers, [low, high{', step' if length == 3 else ''}]"
        raise invalid(key, rule, list(distribution.args))
    if kind == "randint" and not all(isinstance(arg, int) for arg in args):
        raise invalid(key, "be whole numbers", list(args))
    if not args[0] < args[1]:
        raise invalid(key, "have low below high", list(args))
    if kind == "loguniform" and not args[0] > 0:
        raise invalid(key, "have low above 0", list(args))
    if kind == "quniform" and not 0 < args[2] <= args[1] - args[0]:
        raise invalid(key, "have a step above 0 and at most high - low", list(args))


def _check_choices(key: str, distribution: Distribution) -> None:
    if not distribution.args:
        raise invalid(key, "hold at least one value", [])
    seen: list[object] = []
    for value in distribution.args:
        if value in seen and distribution.kind == "grid":
            raise invalid(key, "hold each value once", list(distribution.args))
        seen.append(value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _entries(space: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    """(dotted key, entry) in order. A mapping of mappings that are no distributions holds further parts of a key."""
    for name, entry in space.items():
        if not isinstance(entry, Mapping):
            yield f"{prefix}{name}", entry
        elif entry and all((v is None or isinstance(v, Mapping)) and k not in KINDS for k, v in entry.items()):
            yield from _entries(entry, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", {kind: args for kind, args in entry.items() if args is not None}
