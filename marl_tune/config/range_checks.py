"""Checks of one setting, used in the `__post_init__` of the schemas. Each raises `ConfigError`.

A comparison with NaN is false. So each check is written as the condition that must hold.
"""

import math
from collections.abc import Sequence

from marl_tune.config.errors import invalid


def at_least(key: str, value: float | None, low: float) -> None:
    """Refuses a value that is below `low` or not finite. None (not set) passes."""
    if value is not None and not low <= value < math.inf:
        raise invalid(key, f"be at least {low}", value)


def above(key: str, value: float | None, low: float) -> None:
    """Refuses a value that is not above `low` or not finite. None (not set) passes."""
    if value is not None and not low < value < math.inf:
        raise invalid(key, f"be above {low}", value)


def within(key: str, value: float | None, low: float, high: float) -> None:
    """Refuses a value outside the closed range [low, high]. None (not set) passes."""
    if value is not None and not low <= value <= high:
        raise invalid(key, f"be between {low} and {high}", value)


def one_of(key: str, value: object, choices: Sequence[str]) -> None:
    """Refuses a word that is not one of `choices`."""
    if value not in choices:
        raise invalid(key, f"be one of {', '.join(choices)}", value)


def word(key: str, value: str) -> None:
    """Refuses a name that cannot be a folder's: empty, with a leading dot, a separator or white space."""
    if not value or value.startswith(".") or any(sign in '/\\:*?"<>|' or sign.isspace() for sign in value):
        raise invalid(key, "be one word that can name a folder (no slash, colon, quote, white space)", value)


def named(key: str, value: str, name: str) -> None:
    """Refuses another value of a `name` field than the option's own: it says which option it is, and is no setting."""
    if value != name:
        raise invalid(key, f"stay {name} (choose another option of the group instead)", value)
