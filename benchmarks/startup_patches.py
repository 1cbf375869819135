"""What each patch of a pinned library saves: processor seconds of a whole command, with the patch and without it.

    python -m benchmarks.startup_patches [--patches adam,ray] [--rounds 7] [--json]

The two commands alternate. The figures are user and system seconds of all processes of a command, Ray's too, which
depend little on other work on the machine; wall-clock seconds stand beside them. The processes are looked at ten times
a second, so what a process does in its last tenth of a second is not counted.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.command import parser, positive, show, some_of
from benchmarks.measure import clock, spread
from benchmarks.processes import CommandError, last_line, started

LOOK_S = 0.1
TIMEOUT_S = 300.0
TICKS = os.sysconf("SC_CLK_TCK")  # a second
MARK = "MARL_TUNE_MEASURED"  # environment variable by which the processes of a command are known
LONE = ("+experiment=debug", "search=none", "search.num_samples=1", "stop.iterations=1", "selection.top_k=1")
TWO = ("+experiment=debug", "cluster.num_cpus=2")
POPULATION = (
    *("+experiment=debug", "cluster.num_cpus=2", "search=pbt", "search.num_samples=4", "stop.iterations=4"),
    "search.perturbation_interval=1",
)


@dataclass(frozen=True)
class Patch:
    """How a patch is left out, and the command that shows it."""

    place: str  # module:name of what applies the patch
    instead: str  # module:name of what stands there when the patch is left out
    words: tuple[str, ...]  # of the command


NOTHING = "contextlib:nullcontext"
PATCHES = {
    "adam": Patch("marl_tune.learning.live_settings:Adam", "torch.optim:Adam", LONE),
    "deterministic": Patch("marl_tune.cluster.startup_patches:deterministic_without_compiler", NOTHING, LONE),
    "ray": Patch("marl_tune.cluster.startup_patches:ray_on_demand", NOTHING, LONE),
    "ready": Patch("marl_tune.cluster.startup_patches:ready_processes", NOTHING, TWO),
    "keeping": Patch("marl_tune.sweep.tune_driver:keeping_processes", NOTHING, POPULATION),
}


def run_without(name: str, words: Sequence[str]) -> int:
    """The framework's command in this process, without the patch of that name; "none": with all of them."""
    if name != "none":
        patch = PATCHES[name]
        module, _, attribute = patch.place.partition(":")
        other, _, stand_in = patch.instead.partition(":")
        setattr(importlib.import_module(module), attribute, getattr(importlib.import_module(other), stand_in))
    from marl_tune.__main__ import main as framework

    return framework(list(words))


def processor_seconds(words: Sequence[str], threads: int) -> tuple[float, float]:
    """(user and system seconds of all processes of the command, its wall-clock seconds).

    Raises:
        CommandError: the command failed or took too long.
    """
    mark, began = str(time.time_ns()), clock()
    used: dict[int, float] = {}  # process -> seconds
    os.environ[MARK] = mark
    with (
        tempfile.TemporaryFile() as errors,
        started(words, threads, stdout=subprocess.DEVNULL, stderr=errors) as process,
    ):
        ours: set[int] = set()  # processes of the command
        while process.poll() is None:
            for pid in [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]:
                if pid in ours or _is_marked(pid, mark):
                    ours.add(pid)
                    used[pid] = max(used.get(pid, 0.0), _seconds_of(pid))
            if clock() - began > TIMEOUT_S:
                raise CommandError(f"python {' '.join(words)}: not done after {TIMEOUT_S:g} s")
            time.sleep(LOOK_S)
        took = clock() - began
        if process.returncode != 0:
            raise CommandError(f"python {' '.join(words)}: exit code {process.returncode}: {last_line(errors)}")
    return sum(used.values()), took


def _is_marked(pid: int, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _seconds_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(name: str, rounds: int, threads: int) -> dict[str, object]:
    """What the patch saves, round by round."""
    figures: dict[str, list[tuple[float, float]]] = {"none": [], name: []}
    for number in range(rounds):
        for left_out in sorted(figures, reverse=bool(number % 2)):
            with tempfile.TemporaryDirectory() as folder:
                words = [*PATCHES[name].words, "selection.episodes=2", "logger.progress=off", f"results_dir={folder}"]
                command = ["-m", "benchmarks.startup_patches", "--without", left_out, *words]
                figures[left_out].append(processor_seconds(command, threads))
    pairs = list(zip(figures[name], figures["none"], strict=True))
    return {
        "with_it_s": spread([own for _, (own, _) in pairs]),
        "saved_s": spread([other - own for (other, _), (own, _) in pairs]),
        "saved_share": spread([1 - own / other for (other, _), (own, _) in pairs]),
        "saved_wall_s": spread([other - own for (_, other), (_, own) in pairs]),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Prints what each patch saves."""
    words = list(sys.argv[1:] if words is None else words)
    if words[:1] == ["--without"]:
        return run_without(words[1], words[2:])
    made = parser(__doc__)
    made.add_argument("--patches", type=some_of(PATCHES), default=list(PATCHES), help=f"of {','.join(PATCHES)}")
    made.add_argument("--rounds", type=positive, default=7, help="of both in turn (default: 7)")
    arguments = made.parse_args(words)
    show({name: measure(name, arguments.rounds, arguments.threads) for name in arguments.patches}, arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
