"""Observations of modules: one Box that is encoded and, in a Dict space, an action mask beside it."""

from typing import TypeAlias

import gymnasium as gym
import numpy as np
from torch import Tensor

Observation: TypeAlias = Tensor | dict[str, Tensor]

FEATURES, MASK = "observation", "action_mask"  # keys of a Dict observation, as PettingZoo names them


def feature_space(space: gym.Space) -> gym.spaces.Box:
    """The part of an observation that is encoded.

    Raises:
        ValueError: if the space is neither a Box with at least one axis nor a Dict of such a Box and an action mask.
    """
    masked = isinstance(space, gym.spaces.Dict) and set(space) == {FEATURES, MASK}
    box = space[FEATURES] if masked else space
    if not isinstance(box, gym.spaces.Box) or not box.shape:
        raise ValueError(
            f"the observation space must be a vector or image Box, or a Dict of such a Box, {FEATURES!r}, and "
            f"{MASK!r}; got {space}"
        )
    return box


def mask_size(space: gym.Space) -> int | None:
    """Number of entries of the action mask of a space that `feature_space` accepts; None: there is no mask."""
    return int(np.prod(space[MASK].shape)) if isinstance(space, gym.spaces.Dict) else None


def split_mask(obs: Observation) -> tuple[Tensor, Tensor | None]:
    """An observation as two parts: what is encoded, and the action mask or None."""
    return (obs[FEATURES], obs[MASK]) if isinstance(obs, dict) else (obs, None)


def scale_of(space: gym.spaces.Box) -> float:
    """The factor that brings integer pixels (uint8) into [0, 1]; 1 for any other type."""
    return 1.0 / max(1.0, float(space.high.max())) if space.dtype == np.uint8 else 1.0
