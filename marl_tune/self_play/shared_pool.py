"""The frozen copies that the trials of a population share: a folder of the run, one file a copy.

A file is written beside its place and moved there: a reader meets it whole or not at all, and a trial that is killed
leaves nothing half done. A trial that goes on from an earlier checkpoint may find copies of the time that was lost;
they are policies with their ratings like any others, and stay.
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
        folder: made when missing; all trials reach it under this path.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def publish(self, trial: str, learner: str, iteration: int, elo: float, weights: Weights) -> str:
        """Writes a copy; returns its name. The same copy again is the same file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{trial}.{learner}.{iteration:06d}.{_digest(weights)}"
        draft = self.folder / f".{name}.{os.getpid()}"
        torch.save({"elo": elo, "iteration": iteration, "weights": weights}, draft)
        draft.replace(self.folder / f"{name}.pt")
        return name

    def choose(self, learner: str, known: Collection[str], rng: np.random.Generator) -> Copy | None:
        """The newest copy of this learner of one trial, drawn among the trials whose newest one is not yet known.

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
    """Eight letters that tell two sets of weights apart."""
    found = hashlib.sha256()
    for name, array in sorted(weights.items()):
        found.update(name.encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:8]
