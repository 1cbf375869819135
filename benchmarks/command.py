"""What all benchmark commands share: their arguments, and how a result is shown."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

from benchmarks.works import WORKS


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with --threads and --json; the docstring's first line says what the command does."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--threads", type=positive, default=1, help="threads of torch in each process (default: 1)")
    made.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return made


def work_parser(doc: str | None, *, iterations: int, warmup: int) -> argparse.ArgumentParser:
    """A parser for one contestant on one work."""
    made = parser(doc)
    made.add_argument("--work", choices=WORKS, default="W2", help="see benchmarks/works.py (default: W2)")
    made.add_argument("--envs", type=positive, help="copies of the world stepped in turn or at once")
    made.add_argument("--iterations", type=positive, default=iterations, help=f"measured (default: {iterations})")
    made.add_argument("--warmup", type=positive, default=warmup, help=f"left out before (default: {warmup})")
    return made


def positive(word: str) -> int:
    """A whole number of at least 1."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {word!r}")
    return int(word)


def some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """What reads words with commas between them, each of which must be known."""

    def read(words: str) -> list[str]:
        chosen = words.split(",")
        for word in chosen:
            if word not in known:
                raise argparse.ArgumentTypeError(f"must be some of {','.join(known)}, got {word!r}")
        return chosen

    return read


def limit_threads(threads: int) -> None:
    """Threads of torch here, and of numpy's and torch's libraries in the processes that this one starts."""
    import torch

    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def show(result: Mapping[str, Any], as_json: bool) -> None:
    """One JSON object, or a line for each figure."""
    if as_json:
        print(json.dumps(result))
        return
    lines = dict(_lines("", result))
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")


def _lines(prefix: str, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value.keys() == {"median", "min", "max"}:
            low, high = number(value["min"]), number(value["max"])
            lines.append((prefix + key, f"{number(value['median'])} [{low}, {high}]"))
        elif key == "versions":
            lines.append((prefix + key, ", ".join(f"{package} {version}" for package, version in value.items())))
        elif isinstance(value, Mapping):
            lines += _lines(f"{prefix}{key}.", value)
        else:
            lines.append((prefix + key, number(value) if isinstance(value, float) else str(value)))
    return lines


def number(value: float) -> str:
    """Three or four digits that count: 34,200, 12.35, 0.0457."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
