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


def save_whole(value: object, path: Path) -> None:
    """Writes `value` to a file that `torch.load` reads."""
    # torch's default, protocol 2, writes NumPy's arrays as text: half as long again, in time and in size.
    torch.save(value, path, pickle_protocol=pickle.HIGHEST_PROTOCOL)


def read_training(folder: Path) -> dict[str, Any]:
    """What training continues from: the state of the optimizers, the state of sampling, and `counters`."""
    return _read(folder, TRAINING)


def load_weights(folder: Path) -> dict[str, dict[str, object]]:
    """Module id -> state of the module, by RLlib's names of its parameters."""
    return _read(folder, POLICY)


def load_sweep(folder: Path) -> SweepConfig:
    """The settings that the checkpoint was trained with."""
    return convert.from_dict(json.loads((folder / CONFIG).read_text()))


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """A context in which a checkpoint is read: an error about its content becomes an `OtherVersion`.

    A `ConfigError` stays as it is, and so does an `OSError`, such as that of a missing file.
    """
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
