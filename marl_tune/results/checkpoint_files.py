"""Reading and writing the files of a checkpoint."""

from __future__ import annotations

import json
import pickle
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from marl_tune.config import convert
from marl_tune.config.errors import ConfigError, OtherVersion
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.results.checkpoint_folder import CONFIG, POLICY, TRAINING


def save_whole(value: Any, path: Path) -> None:
    # torch's default, protocol 2, writes NumPy's arrays as text: half as long again, in time and in size.
    torch.save(value, path, pickle_protocol=pickle.HIGHEST_PROTOCOL)


def read_training(folder: Path) -> dict[str, Any]:
    """What training goes on from: the optimizer's state, where sampling stands, and `counters`."""
    return _read(folder, TRAINING)


def load_weights(folder: Path) -> dict[str, Any]:
    """Module id -> state of the module."""
    return _read(folder, POLICY)


def load_sweep(folder: Path) -> SweepConfig:
    """The settings that the checkpoint was trained with."""
    return convert.from_dict(json.loads((folder / CONFIG).read_text()))


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Makes of any failure to take in what a checkpoint holds, but that a file is not there, an `OtherVersion`."""
    try:
        yield
    except (ConfigError, OSError):
        raise
    except Exception as error:
        reason = "".join(traceback.format_exception_only(error)).strip()
        what = f"the checkpoint {str(folder)!r} cannot be read"
        raise OtherVersion(f"{what}: it was written by another version, or is damaged ({reason})") from error


def _read(folder: Path, name: str) -> Any:
    with reading(folder):
        return torch.load(folder / name, weights_only=False)
