"""The state of a world that is arrays and generators: what `World.get_state` and `set_state` are for most of ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def save_state(arrays: Mapping[str, np.ndarray], generators: Sequence[np.random.Generator]) -> dict[str, Any]:
    """All that the arrays and the generators hold now, detached from them.

    Args:
        arrays: name -> array, those that change in the course of an episode and do not follow from others.
        generators: one per copy.
    """
    return {
        "arrays": {name: array.copy() for name, array in arrays.items()},
        "generators": [generator.bit_generator.state for generator in generators],
    }


def restore_state(
    state: Mapping[str, Any], arrays: Mapping[str, np.ndarray], generators: Sequence[np.random.Generator]
) -> None:
    """Writes what `save_state` returned into arrays and generators of a world of the same size.

    Raises:
        ValueError: for the state of a world of another size; no array has been changed then.
    """
    for name, array in state["arrays"].items():
        if array.shape != arrays[name].shape:
            raise ValueError(f"state of another world: {name} is {array.shape}, here {arrays[name].shape}")
    for name, array in state["arrays"].items():
        arrays[name][...] = array
    for generator, saved in zip(generators, state["generators"], strict=True):
        generator.bit_generator.state = saved
