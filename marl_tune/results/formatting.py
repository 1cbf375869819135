"""How numbers, durations, settings and names are written for people: in the terminal and in the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from marl_tune.results.json_records import EvaluationNumbers
from marl_tune.results.text_files import as_cell


def format_value(value: object) -> str:
    """A setting: four significant digits of a number, words as they are, anything else as JSON; "" for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return format_number(value)
    return as_cell(value)


def format_number(value: float | None) -> str:
    """Four significant digits; "-" for None and NaN."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4g}"


def format_score(value: float | None) -> str:
    """Four digits with trailing zeros, so that scores in a column are easy to compare: 2.160, 42.40, 12,345."""
    if value is None or not math.isfinite(value):
        return format_number(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}"


def score_of(numbers: EvaluationNumbers) -> float:
    """What an evaluation ranks by: the mean result of games between candidates, else the interquartile mean."""
    return float(numbers["mean_result"] if "mean_result" in numbers else numbers["iqm"])


def format_count(value: float | None) -> str:
    """A number of steps in short form: 950, 41.2k, 3.40M; "-" for None."""
    if value is None or not math.isfinite(value):
        return "-"
    for limit, divisor, unit in ((1e4, 1, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (math.inf, 1e9, "G")):
        if abs(value) < limit:
            scaled = value / divisor
            return f"{scaled:.0f}{unit}" if divisor == 1 or abs(scaled) >= 100 else f"{scaled:.3g}{unit}"
    return "∞"


def format_duration(seconds: float | None) -> str:
    """A duration such as 1:05, 2:03:04 or 3d 04:05; "-" for None."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02d}:{minute:02d}"
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Dotted key -> its shortest end that no other key has: `algorithm.lr` -> `lr`."""
    return {key: _shortest(key, keys) for key in keys}


def _shortest(key: str, keys: Sequence[str]) -> str:
    parts = key.split(".")
    for length in range(1, len(parts)):
        tail = parts[-length:]
        if sum(other.split(".")[-length:] == tail for other in keys) == 1:
            return ".".join(tail)
    return key


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """Trial id -> its part after the common prefix: `a1b2c_00003` -> `00003` if all ids begin with `a1b2c_`."""
    heads = {trial_id.rpartition("_")[0] for trial_id in ids}
    common = len(heads) == 1
    return {trial_id: trial_id.rpartition("_")[2] if common else trial_id for trial_id in ids}
