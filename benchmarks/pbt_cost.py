"""What PBT costs: 4 trials x 16 short iterations on 2 slots, with PBT and with no scheduler, in turn in one run.

    python -m benchmarks.pbt_cost [--rounds 3] [--iterations 16] [--json]

Each run is the public command in a process of its own; compared are the seconds that Tune took, from the first trial's
start to the last one's end.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import machine

TRIALS = 4
WORDS = [
    "+experiment=ant_colony",
    "logger=csv",
    "logger.progress=off",
    "cluster.num_cpus=2",
    f"search.num_samples={TRIALS}",
    "stop.agent_steps=null",
    "selection.episodes=2",
]
VARIANTS = {
    "no scheduler": ["search=random"],
    "pbt": ["search=pbt", "search.perturbation_interval=2"],
}
TIMEOUT_S = 300  # of one sweep


def measure(words: list[str]) -> dict[str, float]:
    """One sweep: its seconds and exploits."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "marl_tune", *WORDS, *words, f"results_dir={folder}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, check=True, timeout=TIMEOUT_S, **quiet)
        summary = json.loads(next(Path(folder).rglob("summary.json")).read_text())
        lineage = next(Path(folder).rglob("lineage.csv"), None)
        exploits = 0 if lineage is None else len(list(csv.DictReader(lineage.open())))
    return {"seconds": summary["wall_time_s"], "exploits": exploits}


def main() -> None:
    """Measures in turn and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=16, help="of each trial (default: 16)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(arguments.rounds):
        for name, words in VARIANTS.items():
            runs[name].append(measure([*words, f"stop.iterations={arguments.iterations}"]))
    medians = {name: statistics.median(run["seconds"] for run in rows) for name, rows in runs.items()}
    result = {
        "machine": machine(),
        "runs": runs,
        "median_seconds": medians,
        "ratio": medians["pbt"] / medians["no scheduler"],
    }
    if arguments.json:
        print(json.dumps(result))
        return
    for name, seconds in medians.items():
        rows = runs[name]
        print(f"{name:14} {seconds:6.1f} s   exploits {[r['exploits'] for r in rows]}")
    print(f"ratio          {result['ratio']:6.2f}")


if __name__ == "__main__":
    main()
