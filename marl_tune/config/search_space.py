"""The search space: dotted key -> `{distribution: arguments}`, parsed and checked; knows neither Ray nor Optuna.

    algorithm.lr: {loguniform: [1e-5, 1e-3]}     module.hidden_dims: {choice: [[64, 64], [256, 256]]}
    env.n_agents: {randint: [5, 20]}             module: {grid: [mlp, plasticity]}

| kind | arguments | draws |
|---|---|---|
| uniform | [low, high] | a float |
| loguniform | [low, high], low > 0 | a float, uniform in its logarithm |
| quniform | [low, high, step] | a multiple of step |
| randint | [low, high] | a whole number, high left out |
| choice | [value, ...] | one of the values |
| grid | [value, ...] | every value in turn |
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from marl_tune.config.errors import invalid, unknown

KINDS = ("uniform", "loguniform", "quniform", "randint", "choice", "grid")


@dataclass(frozen=True)
class Distribution:
    """How one setting is drawn. `args` are those of the table above."""

    kind: str
    args: tuple[Any, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether it draws numbers from a range (else: one of `choices`)."""
        return self.kind not in ("choice", "grid")

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a choice or grid; empty for a range."""
        return () if self.is_numeric else self.args

    @property
    def low(self) -> float:
        """The least value that can be drawn from a range."""
        return self.args[0]

    @property
    def high(self) -> float:
        """The greatest value that can be drawn from a range (randint: its upper end less 1)."""
        return self.args[1] - 1 if self.kind == "randint" else self.args[1]

    def clip(self, value: Any) -> Any:
        """The nearest value inside the range: PBT multiplies a value without regard to the range it was drawn from."""
        return min(max(value, self.low), self.high) if self.is_numeric else value

    def probes(self) -> tuple[Any, ...]:
        """Values to try before a sweep starts: every choice, or both ends of a range and a value between them."""
        if not self.is_numeric:
            return self.args
        if self.kind == "quniform":
            return self.low, self.low + self.args[2], self.high
        if self.kind == "randint":
            return self.low, self.high
        return self.low, self.low + (self.high - self.low) * 0.6180339887, self.high  # not whole: an int key is refused

    def __str__(self) -> str:
        return f"{{{self.kind}: {list(self.args)}}}"


def normalise(space: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The space with one entry a dotted key, whether keys were typed whole or nested; what is null is taken out.

    A file says `algorithm.lr: {uniform: [0, 1]}`; `+space.algorithm.lr.uniform=[0,1]` on the command line nests, and
    wins over the file's entry. `+space.algorithm.lr=null` takes a key out of an experiment's space.
    """
    flat: dict[str, dict[str, Any]] = {}
    for key, entry in _entries(space, ""):
        if entry is None or entry == {}:
            flat.pop(key, None)
        else:
            flat[key] = entry
    return flat


def parse(space: Mapping[str, Any]) -> dict[str, Distribution]:
    """Dotted key -> distribution, of a normalised space; `ConfigError` names the key, the value and the rule."""
    return {key: parse_entry(f"space.{key}", entry) for key, entry in space.items()}


def parse_entry(key: str, entry: Any) -> Distribution:
    """One entry `{distribution: arguments}`; `key` is how errors call it."""
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
    """Points of the grid: the product of the grids' sizes and, where `choices_too` (search=grid), of the choices'."""
    sizes = [len(d.args) for d in space.values() if d.kind == "grid" or (choices_too and d.kind == "choice")]
    return math.prod(sizes)


def trial_count(search: str, num_samples: int, space: Mapping[str, Distribution]) -> int:
    """Trials of the whole sweep: num_samples, times the points of the grid; `none` does not search the space."""
    if search == "none":
        return num_samples
    return num_samples * grid_points(space, choices_too=search == "grid")


def _check_range(key: str, distribution: Distribution) -> None:
    args, kind = distribution.args, distribution.kind
    length = 3 if kind == "quniform" else 2
    if len(args) != length or not all(_is_number(arg) for arg in args):
        raise invalid(key, f"be {length} numbers, [low, high{', step' if length == 3 else ''}]", list(args))
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
    seen: list[Any] = []
    for value in distribution.args:
        if value in seen and distribution.kind == "grid":
            raise invalid(key, "hold each value once", list(distribution.args))
        seen.append(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _entries(space: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """(dotted key, entry) in order; a mapping of mappings, none of them a distribution, holds more parts of a key."""
    for name, entry in space.items():
        if not isinstance(entry, Mapping):
            yield f"{prefix}{name}", entry
        elif entry and all((v is None or isinstance(v, Mapping)) and k not in KINDS for k, v in entry.items()):
            yield from _entries(entry, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", {kind: args for kind, args in entry.items() if args is not None}
