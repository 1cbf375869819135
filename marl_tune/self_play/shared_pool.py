"""The frozen copies that the trials of a population share: a folder of the run, one file for each copy.

A file is written under another name and then renamed. So a reader never sees half a file, even if the writer is killed.
A trial that restarts from an earlier checkpoint may find copies that it made after that checkpoint. They stay: they are
policies with ratings, as all others are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

Weights = dict[str, np.ndarray]  # name -> array, of one module


@dataclass(frozen=True)
class Copy:
    """A frozen copy of a learner."""

    name: str  # trial.learner.iteration.digest of its weights
    elo: float  # rating of the learner when it was frozen
    iteration: int  # of the trial that trained it, then
    weights: Weights


class SharedPool:
    """The folder.

    Args:
        folder: created when missing. All trials must reach it under this path.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def publish(self, trial: str, learner: str, iteration: int, elo: float, weights: Weights) -> str:
        """Writes a copy and returns its name. The same copy written again is the same file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{trial}.{learner}.{iteration:06d}.{_digest(weights)}"
        draft = self.folder / f".{name}.{os.getpid()}"
        torch.save({"elo": elo, "iteration": iteration, "weights": weights}, draft)
        draft.replace(self.folder / f"{name}.pt")
        return name

    def choose(self, learner: str, known: Collection[str], rng: np.random.Generator) -> Copy | None:
        """Draws a trial whose newest copy of this learner is not known yet, and returns that copy.

        Args:
            learner: module id.
            known: names of the copies that the caller has.

        Returns:
            None where there is no such trial.
        """
        newest: dict[str, tuple[int, str]] = {}
        for path in self.folder.glob("*.pt"):
            trial, kind, iteration, _ = path.stem.rsplit(".", 3)
            if kind == learner:
                newest[trial] = max(newest.get(trial, (-1, "")), (int(iteration), path.stem))
        names = [name for _, (_, name) in sorted(newest.items()) if name not in known]
        if not names:
            return None
        name = names[int(rng.integers(len(names)))]
        saved = torch.load(self.folder / f"{name}.pt", weights_only=False)
        return Copy(name, saved["elo"], saved["iteration"], saved["weights"])


def _digest(weights: Weights) -> str:
    """The first 8 hexadecimal digits of the weights' SHA-256."""
    found = hashlib.sha256()
    for name, array in sorted(weights.items()):
        found.update(name.encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:8]
