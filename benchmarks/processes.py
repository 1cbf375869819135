"""Commands that are measured from outside: each in a process group of its own that never outlives its time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

from benchmarks.measure import ROOT

GRACE_S = 10.0  # between the request to end and the end


class CommandError(RuntimeError):
    """A measured command failed, took too long, or printed something else than one JSON object."""


@contextlib.contextmanager
def started(
    words: Sequence[str], threads: int, stdout: int | IO[bytes], stderr: IO[bytes]
) -> Iterator[subprocess.Popen]:
    """Runs `python` with these words in the repository; when the block ends, so do all processes of the command."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONWARNINGS": "ignore",
    }
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=environment, stdout=stdout, stderr=stderr, start_new_session=True
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    """Ends what is left of the process's group, politely first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)


def run_json(words: Sequence[str], timeout_s: float, threads: int = 1) -> dict[str, Any]:
    """The one JSON object that `python` with these words prints.

    Raises:
        CommandError: names the command and what went wrong.
    """
    command = f"python {' '.join(words)}"
    with tempfile.TemporaryFile() as errors, started(words, threads, subprocess.PIPE, errors) as process:
        try:
            out, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise CommandError(f"{command}: not done after {timeout_s:g} s") from None
        if process.returncode != 0:
            raise CommandError(f"{command}: exit code {process.returncode}: {last_line(errors)}")
        try:
            return json.loads(out)
        except ValueError:
            raise CommandError(f"{command}: printed {out[:80]!r} where one JSON object was due") from None


def last_line(errors: IO[bytes]) -> str:
    """The last line that a command wrote there."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"
