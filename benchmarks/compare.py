"""marl_tune against stock RLlib, a PPO by hand, the floor and itself: every figure that is claimed, beside its target.

    python -m benchmarks.compare [--quick] [--only W2,start,…] [--out FILE] [--json]

All contestants run in turn, round by round, each in a process of its own, so that a machine whose speed drifts is fair
to all. About 15 minutes on 2 cores; with --quick about 2. Exit code 0, or 1 when a contestant failed: a target that is
missed is a finding, not a failure.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.claims import CLAIMS, PARTS, Claim
from benchmarks.command import number, parser, some_of
from benchmarks.contestants import CONTESTANTS, FULL, QUICK, Effort
from benchmarks.measure import ROOT, clock, machine
from benchmarks.processes import CommandError, run_json


def run_rounds(names: Sequence[str], effort: Effort, threads: int) -> list[dict[str, Any]]:
    """What each contestant printed in each round; `{"error": …}` where it failed. Says on stderr what is going on."""
    rounds: list[dict[str, Any]] = []
    for turn in range(effort.rounds):
        rounds.append({})
        for name in names:
            print(f"round {turn + 1} of {effort.rounds}: {name} … ", end="", file=sys.stderr, flush=True)
            began, contestant = clock(), CONTESTANTS[name]
            try:
                rounds[-1][name] = run_json(contestant.command(effort, threads), contestant.timeout_s, threads)
                print(f"{clock() - began:.0f} s", file=sys.stderr)
            except CommandError as error:
                rounds[-1][name] = {"error": str(error)}
                print(f"failed: {error}", file=sys.stderr)
    return rounds


def judge(claims: Iterable[Claim], rounds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every claim in numbers, from the contestants that came through."""
    came_through = [{name: run for name, run in results.items() if "error" not in run} for results in rounds]
    return [claim.judge(came_through) for claim in claims]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line a claim: medians, the figure with its range over the rounds, the target, and whether it is met."""
    head = ("", "", "ours", "other", "", "figure [min, max]", "target", "met")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    right = {2, 3}
    return "\n".join(
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    target = f"{'>=' if row['at_least'] else '<='} {number(float(row['target']))}"
    if row["figure"] is None:
        return (row["part"], row["text"], "-", "-", row["unit"], "not measured", target, "-")
    median, low, high = (number(row["figure"][key]) for key in ("median", "min", "max"))
    other = "" if row["other"] is None else number(row["other"]["median"])
    times = "" if row["other"] is None else " times"
    figure = f"{median}{times} [{low}, {high}]"
    met = "yes" if row["met"] else "NO"
    return (row["part"], row["text"], number(row["ours"]["median"]), other, row["unit"], figure, target, met)


def _default_out() -> Path:
    return ROOT / "results" / "benchmarks" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}.json"


def main(words: Sequence[str] | None = None) -> int:
    """Measures, writes the JSON file, prints the table."""
    made = parser(__doc__)
    made.add_argument("--quick", action="store_true", help="one short round: whether all works, not what to quote")
    made.add_argument(
        "--only", type=some_of(PARTS), default=list(PARTS), help=f"parts, of {','.join(PARTS)} (default: all)"
    )
    made.add_argument("--out", type=Path, help="JSON file (default: results/benchmarks/<time>.json)")
    arguments = made.parse_args(words)
    effort, out = QUICK if arguments.quick else FULL, arguments.out or _default_out()
    out.parent.mkdir(parents=True, exist_ok=True)
    claims = [claim for claim in CLAIMS if claim.part in arguments.only]
    needed = set().union(*(claim.contestants for claim in claims))
    about = {**machine(), "threads": arguments.threads}
    rounds = run_rounds([name for name in CONTESTANTS if name in needed], effort, arguments.threads)
    rows = judge(claims, rounds)
    result = {"machine": about, "effort": dataclasses.asdict(effort), "claims": rows, "rounds": rounds}
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(result))
    else:
        versions = ", ".join(f"{name} {about['versions'].get(name)}" for name in ("ray", "torch", "numpy"))
        print(f"{about['cpu']}, {about['cores']} cores, {about['threads']} torch threads, {versions}, {about['date']}")
        print(f"\n{table(rows)}\n\n{out}")
    return int(any("error" in run for results in rounds for run in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
