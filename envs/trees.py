"""Arrays and trees of arrays, which all functions here treat alike.

A tree is one array, or a dict of trees: the form of an observation whose space is a Dict. The arrays are NumPy's, or
torch's where a world simulates on a GPU and keeps its observations there.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    Array: TypeAlias = np.ndarray | Tensor
else:
    Array = np.ndarray  # at run time nothing in envs/ needs torch

Arrays: TypeAlias = Array | dict[str, "Arrays"]
# a tree of arrays

Tree = TypeVar("Tree")


def tree_map(function: Callable[..., Any], *trees: Any) -> Any:
    """Applies a function to each leaf of one tree, or to the matching leaves of several trees of the same form.

    Args:
        function: takes as many leaves as there are trees. A leaf is all that is no dict.
        trees: one or more, of the same form.

    Returns:
        A tree of that form with the results as its leaves.
    """
    first, *others = trees
    if not isinstance(first, dict):
        return function(*trees)
    if not others:  # as at every step and for every piece
        return {key: tree_map(function, value) for key, value in first.items()}
    return {key: tree_map(function, *[tree[key] for tree in trees]) for key in first}


def copied(array: Array) -> Array:
    """A copy in memory of its own, on the same device."""
    return array.copy() if isinstance(array, np.ndarray) else array.clone()


def joined(*arrays: Array) -> Array:
    """The arrays one after the other, along the first axis. One array alone is returned as it is."""
    if len(arrays) == 1:
        return arrays[0]
    if isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays)
    whole, start = empty((sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0]), 0  # nothing in envs/ needs torch
    for array in arrays:
        put(whole, slice(start, start + len(array)), array)
        start += len(array)
    return whole


def put(array: Array, place: Any, values: Array) -> None:
    """Writes values to a place of an array, `array[place] = values`; both are of one library."""
    array[place] = values  # type: ignore[assignment]  # torch's annotations know no union of NumPy's arrays and its own


def taken(array: Array, rows: np.ndarray) -> Array:
    """A copy of some rows, in the order of `rows`."""
    return array.take(rows, axis=0) if isinstance(array, np.ndarray) else array[rows]


def sliced(tree: Arrays, part: slice) -> Arrays:
    """The same part of the first axis of every leaf."""
    return {key: sliced(leaf, part) for key, leaf in tree.items()} if isinstance(tree, dict) else tree[part]


def empty(shape: Sequence[int], like: Array) -> Array:
    """An array that is not yet written, of the type and on the device of another."""
    return np.empty(shape, like.dtype) if isinstance(like, np.ndarray) else like.new_empty(tuple(shape))


def on_host(array: Array) -> np.ndarray:
    """The array as one of NumPy's. One of NumPy's is returned as it is."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()
