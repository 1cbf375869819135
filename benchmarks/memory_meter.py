"""Peak memory of a process and of all that it started, sampled by a small process of its own.

The figures are PSS (proportional set size): memory that processes share counts once, split among them. Linux only.

    with MemoryMeter() as meter:
        …
    meter.peak  # {"process_mb": …, "tree_mb": …, "processes": …}

Run as a script, `python memory_meter.py PID`, this file is the sampling process: it needs the standard library only and
ends when its standard input does.
"""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

INTERVAL_S = 1.0  # between two samples: each takes some milliseconds
MIB = 2**20


class MemoryMeter:
    """Watches this process and its descendants.

    After the block, `peak` holds the peaks in MiB, `process_mb` of this process alone and `tree_mb` of all together,
    and how many `processes` there were at most, the meter itself left out; None where the system does not tell.
    """

    peak: dict[str, int] | None = None

    def __enter__(self) -> "MemoryMeter":
        self._sampler = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__, str(os.getpid())],  # a bare interpreter is small and starts at once
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        try:
            out, _stderr = self._sampler.communicate("\n", timeout=20)  # a line: a forked child may hold the pipe open
            self.peak = json.loads(out)
        except (subprocess.TimeoutExpired, ValueError):
            self._sampler.kill()
            self._sampler.wait()


def descendants(root: int) -> list[int]:
    """`root` and every living process below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue  # it has just ended
            parent = int(stat.rpartition(")")[2].split()[1])  # the name before it may hold spaces
            children.setdefault(parent, []).append(int(entry))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def pss(pid: int) -> int:
    """Proportional set size of a process in bytes; 0 when it has ended or is another user's."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def watch(root: int) -> dict[str, int]:
    """Samples until standard input gives a line or ends, and once more then."""
    process = tree = processes = 0
    while True:
        over = bool(select.select([sys.stdin], [], [], INTERVAL_S)[0])
        sizes = {pid: pss(pid) for pid in descendants(root) if pid != os.getpid()}
        process, tree = max(process, sizes.get(root, 0)), max(tree, sum(sizes.values()))
        processes = max(processes, len(sizes))
        if over:
            return {"process_mb": round(process / MIB), "tree_mb": round(tree / MIB), "processes": processes}


if __name__ == "__main__":
    print(json.dumps(watch(int(sys.argv[1]))))
