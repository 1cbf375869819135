"""`python -m marl_tune.report PATH`: writes report.html of a run's folder again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from marl_tune.report.page import write_report
from marl_tune.results.run_folder import RunFolder


def main(words: Sequence[str] | None = None) -> int:
    """The command: writes the report of a run and prints its path. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m marl_tune.report", description="Write report.html of a run again.")
    parser.add_argument("path", metavar="PATH", help="a run's folder, results/NAME/TIME")
    path = parser.parse_args(words).path
    try:
        folder = RunFolder.open(path)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(write_report(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
