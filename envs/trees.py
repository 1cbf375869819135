"""Arrays, or dicts of arrays where an observation space is a Dict, handled alike.

They are NumPy's, or torch's where a world keeps what its agents see on the GPU that it simulates on.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = Any  # np.ndarray or torch.Tensor


def tree_map(function: Callable[..., Any], *trees: Any) -> Any:
    """Applies `function` leaf by leaf to one dict of arrays, nested or not, or to several of the same form."""
    first, *others = trees
    if not isinstance(first, dict):
        return function(*trees)
    if not others:  # as at every step and for every piece
        return {key: tree_map(function, value) for key, value in first.items()}
    return {key: tree_map(function, *[tree[key] for tree in trees]) for key in first}


def copied(array: Array) -> Array:
    """In memory of its own, on the same device."""
    return array.copy() if isinstance(array, np.ndarray) else array.clone()


def joined(*arrays: Array) -> Array:
    """One after the other, along the first axis."""
    if len(arrays) == 1:
        return arrays[0]
    if isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays)
    whole, start = empty((sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0]), 0  # nothing in envs/ needs torch
    for array in arrays:
        whole[start : start + len(array)] = array
        start += len(array)
    return whole


def taken(array: Array, rows: np.ndarray) -> Array:
    """Rows of it in this order, copied."""
    return array.take(rows, axis=0) if isinstance(array, np.ndarray) else array[rows]


def sliced(tree: Any, part: slice) -> Any:
    """The same part of every leaf."""
    return {key: sliced(leaf, part) for key, leaf in tree.items()} if isinstance(tree, dict) else tree[part]


def empty(shape: Sequence[int], like: Array) -> Array:
    """Not yet written, of the type and on the device of another."""
    return np.empty(shape, like.dtype) if isinstance(like, np.ndarray) else like.new_empty(tuple(shape))


def on_host(array: Array) -> np.ndarray:
    """As NumPy's; one of NumPy's is returned as it is."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()
