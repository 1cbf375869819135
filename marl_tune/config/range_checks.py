"""Range checks for one setting, used in the `__post_init__` of the schemas.

A comparison with NaN is false, so each check is written as what must hold.
"""

import math
from collections.abc import Sequence
from typing import Any

from marl_tune.config.errors import invalid


def at_least(key: str, value: float | None, low: float) -> None:
    """Refuse a value below `low` or not finite; None (not set) passes."""
    if value is not None and not low <= value < math.inf:
        raise invalid(key, f"be at least {low}", value)


def above(key: str, value: float | None, low: float) -> None:
    """Refuse a value not strictly above `low` or not finite; None (not set) passes."""
    if value is not None and not low < value < math.inf:
        raise invalid(key, f"be above {low}", value)


def within(key: str, value: float | None, low: float, high: float) -> None:
    """Refuse a value outside the closed range [low, high]; None (not set) passes."""
    if value is not None and not low <= value <= high:
        raise invalid(key, f"be between {low} and {high}", value)


def one_of(key: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse a word that is not one of `choices`."""
    if value not in choices:
        raise invalid(key, f"be one of {', '.join(choices)}", value)


def word(key: str, value: str) -> None:
    """Refuse a name that cannot stand as one part of a path: empty, with a separator or white space, or leading dot."""
    if not value or value.startswith(".") or any(sign in '/\\:*?"<>|' or sign.isspace() for sign in value):
        raise invalid(key, "be one word that can name a folder (no slash, colon, quote, white space)", value)


def named(key: str, value: str, name: str) -> None:
    """Refuse a `name` field that is not the option's own: it says which option the group is, it is not a setting."""
    if value != name:
        raise invalid(key, f"stay {name} (choose another option of the group instead)", value)
