"""manifest.json: what is needed to repeat a run: code, packages, machine, command line, seeds, times."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from marl_tune.results.json_records import GitState, Manifest, Session
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import read_json, write_json

PACKAGES = (
    *("marl-tune", "ray", "torch", "gymnasium", "pettingzoo", "numpy", "scipy", "scikit-learn"),
    *("hydra-core", "omegaconf", "optuna", "wandb"),
)


def begin_manifest(
    folder: RunFolder,
    seeds: Mapping[str, int],
    command: Sequence[str] | None = None,
    working_folder: Path | None = None,
) -> None:
    """Writes the manifest when a run starts, or adds a session to it when a run is resumed.

    Args:
        folder: the run's folder.
        seeds: what is seeded -> seed, such as `{"sweep": 1, "selection": 1000}`.
        command: the words of the command line. Default: those of this process.
        working_folder: folder whose git state is recorded. Default: the current folder.
    """
    session: Session = {
        "started": _now(),
        "finished": None,
        "status": "running",
        "command": shlex.join(command if command is not None else ["python", *sys.orig_argv[1:]]),
        "host": socket.gethostname(),
        "git": git_state(working_folder or Path.cwd()),
    }
    known: Manifest | None = read_json(folder.manifest)
    manifest: Manifest = known or {
        "run": folder.title,
        "started": session["started"],
        "finished": None,
        "seeds": dict(seeds),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "cpu": {"model": cpu_model(), "cores": os.cpu_count()},
        "memory_bytes": memory_bytes(),
        "gpus": gpus(),
        "sessions": [],
    }
    manifest.update({"command": session["command"], "host": session["host"], "git": session["git"]})
    manifest["sessions"].append(session)
    write_json(folder.manifest, manifest)


def finish_manifest(folder: RunFolder, status: str) -> None:
    """Records when and how (finished | failed | interrupted) the newest session has ended."""
    manifest: Manifest = read_json(folder.manifest)
    manifest["finished"] = _now()
    manifest["sessions"][-1].update({"finished": manifest["finished"], "status": status})
    write_json(folder.manifest, manifest)


def git_state(folder: Path) -> GitState | None:
    """The state of the repository that holds `folder`; None outside of a repository, or without git.

    Untracked files make it dirty too: code that is in no commit cannot be run again.
    """
    if _output(["git", "rev-parse", "--is-inside-work-tree"], folder) != "true":
        return None
    return {
        "commit": _output(["git", "rev-parse", "--verify", "--quiet", "HEAD"], folder),  # None before the first commit
        "branch": _output(["git", "branch", "--show-current"], folder) or None,
        "dirty": _output(["git", "status", "--porcelain"], folder) != "",
    }


def package_versions() -> dict[str, str]:
    """The installed versions of the packages that can change a result."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def cpu_model() -> str:
    """The name of the processor, as the operating system reports it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """The memory of the machine; None if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def gpus() -> list[str]:
    """One line for each NVIDIA GPU of this machine: name, memory, driver version.

    `nvidia-smi` is asked, because torch would start CUDA in this process.
    """
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return (_output(query) or "").splitlines()


def _output(command: list[str], folder: Path | None = None) -> str | None:
    """What `command` prints, stripped; None if the command is missing or fails."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
