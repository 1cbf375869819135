"""The files of a checkpoint, and the checkpoint folder that a path stands for."""

from __future__ import annotations

from pathlib import Path

from marl_tune.config.errors import invalid

CONFIG, POLICY, TRAINING = (
    "config.json",
    "policy.pt",
    "training.pt",
)  # files of a checkpoint; see marl_tune/trial/checkpoint.py


def find_policy(path: str, key: str) -> Path:
    """The checkpoint folder that `path` stands for: itself, its checkpoint/, or its best/checkpoint/.

    Args:
        path: a checkpoint folder, a run's best/, or a run's folder.
        key: name of the setting, for the message.

    Raises:
        ConfigError: none of these folders holds a checkpoint.
    """
    for folder in (Path(path), Path(path) / "checkpoint", Path(path) / "best" / "checkpoint"):
        if (folder / POLICY).is_file() and (folder / CONFIG).is_file():
            return folder
    raise invalid(key, "be a run's folder with a best policy, its best/, or a checkpoint folder", path)


def is_whole(folder: Path) -> bool:
    """Whether all files of a checkpoint are there."""
    return all((folder / name).is_file() for name in (CONFIG, POLICY, TRAINING))
