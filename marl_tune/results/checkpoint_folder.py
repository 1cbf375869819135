"""Which folder holds the policy that a path means."""

from __future__ import annotations

from pathlib import Path

from marl_tune.config.errors import invalid

CONFIG, POLICY, TRAINING = (
    "config.json",
    "policy.pt",
    "training.pt",
)  # files of a checkpoint; see marl_tune/trial/checkpoint.py


def find_policy(path: str, key: str) -> Path:
    """The checkpoint folder that `path` means: itself, its checkpoint/, or its best/checkpoint/.

    Args:
        key: of the setting, for the message.

    Raises:
        ConfigError: there is none.
    """
    for folder in (Path(path), Path(path) / "checkpoint", Path(path) / "best" / "checkpoint"):
        if (folder / POLICY).is_file() and (folder / CONFIG).is_file():
            return folder
    raise invalid(key, "be a run's folder with a best policy, its best/, or a checkpoint folder", path)


def is_whole(folder: Path) -> bool:
    """Whether all files of a checkpoint are there."""
    return all((folder / name).is_file() for name in (CONFIG, POLICY, TRAINING))
