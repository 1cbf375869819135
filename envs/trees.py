"""Arrays, or dicts of arrays where an observation space is a Dict, handled alike."""

from collections.abc import Callable
from typing import Any


def tree_map(function: Callable[..., Any], *trees: Any) -> Any:
    """Applies `function` leaf by leaf to one dict of arrays, nested or not, or to several of the same form."""
    if isinstance(trees[0], dict):
        return {key: tree_map(function, *(tree[key] for tree in trees)) for key in trees[0]}
    return function(*trees)
