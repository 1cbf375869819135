"""How long until something is seen: from the command to the first row of progress.csv, ours and stock Tune's.

    python -m benchmarks.startup [--work W2] [--rounds 3] [--json]

Both run in turn as commands of their own, Python's and Ray's start included, on the same world with the same batch.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import parser, positive, show
from benchmarks.measure import clock, spread
from benchmarks.processes import CommandError, last_line, started
from benchmarks.works import WORKS, Work
from marl_tune.results.manifest import package_versions

TIMEOUT_S = 180.0  # of one command, to its end
LOOK_S = 0.02  # between two looks for the row
STOCK_ENVS = 8


def commands(work: Work, results: str, threads: int) -> dict[str, list[str]]:
    """Contestant -> the words after `python`; each trains one trial for one iteration and writes below `results`."""
    ours = work.words(*work.setting(), threads=threads)
    once = ["stop.iterations=1", "selection.top_k=1", "selection.episodes=2", f"results_dir={results}"]
    stock = ["--work", work.name, "--envs", str(STOCK_ENVS), "--results", results]
    return {
        "marl_tune": ["-m", "marl_tune", *ours, *once],
        "stock": ["-m", "benchmarks.reference.rllib_tune", *stock],
    }


def seconds_to_first_row(words: Sequence[str], results: Path, threads: int) -> float:
    """Starts the command, waits for the row, then for the command's end.

    Raises:
        CommandError: the command failed, or there was no row in time.
    """
    began, first = clock(), None
    with (
        tempfile.TemporaryFile() as errors,
        started(words, threads, stdout=subprocess.DEVNULL, stderr=errors) as process,
    ):
        while process.poll() is None:
            if clock() - began > TIMEOUT_S:
                raise CommandError(f"python {' '.join(words)}: not done after {TIMEOUT_S:g} s")
            if first is None and has_row(results):
                first = clock() - began
            time.sleep(LOOK_S if first is None else 1.0)
        if process.returncode != 0 or first is None:
            raise CommandError(f"python {' '.join(words)}: exit code {process.returncode}: {last_line(errors)}")
    return first


def has_row(results: Path) -> bool:
    """Whether some progress.csv below the folder has a line besides its head."""
    return any(path.read_bytes().count(b"\n") > 1 for path in results.rglob("progress.csv"))


def measure(work: Work, rounds: int, threads: int) -> dict[str, list[float]]:
    """Contestant -> seconds of each round; the contestants alternate."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name in commands(work, "", threads):
            with tempfile.TemporaryDirectory() as folder:
                words = commands(work, folder, threads)[name]
                seconds.setdefault(name, []).append(seconds_to_first_row(words, Path(folder), threads))
    return seconds


def main(words: Sequence[str] | None = None) -> int:
    """Prints the seconds of both and, round by round, their ratio."""
    made = parser(__doc__)
    made.add_argument("--work", choices=WORKS, default="W2", help="see benchmarks/works.py (default: W2)")
    made.add_argument("--rounds", type=positive, default=3, help="of both in turn (default: 3)")
    arguments = made.parse_args(words)
    seconds = measure(WORKS[arguments.work], arguments.rounds, arguments.threads)
    ratios = [ours / stock for ours, stock in zip(seconds["marl_tune"], seconds["stock"], strict=True)]
    result = {
        "work": arguments.work,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio": spread(ratios),
        "versions": package_versions(),
    }
    show(result, arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
