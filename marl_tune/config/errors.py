"""The one error that a wrong setting raises, and the words in which it is said."""

import difflib
from collections.abc import Iterable
from typing import Any


class ConfigError(ValueError):
    """A setting is wrong. Its text is one line that names the dotted key, the value and the rule."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class OtherVersion(ConfigError):
    """A checkpoint that this version cannot read."""


def invalid(key: str, rule: str, value: Any) -> ConfigError:
    """The error for a `value` that breaks a `rule`: "algorithm.lr must be above 0, got -1.0"."""
    return ConfigError(f"{key} must {rule}, got {value!r}")


def unknown(what: str, word: str, valid: Iterable[str]) -> ConfigError:
    """The error for a `word` that is not one of the `valid` ones: names the nearest of them, or, of a few, all."""
    choices = sorted(valid)
    return ConfigError(f"{what} {word!r} is not known{suggestion(word, choices)}")


def suggestion(word: str, choices: list[str]) -> str:
    """The end of a message: ": did you mean 'x'?", or the list of choices where it is short, or nothing."""
    near = _nearest(word, choices)
    section = word.rpartition(".")[0]
    same = [choice for choice in choices if choice.rpartition(".")[0] == section] if section and not near else choices
    few = f" (valid: {', '.join(same)})" if 0 < len(same) <= (12 if near else 24) else ""
    return f": did you mean {near!r}?{few}" if near else few


def _nearest(word: str, choices: list[str]) -> str | None:
    """The choice that was meant: a key of the same section ("algorithm.lrr"), else, where there is no such section, the
    most similar key ("algoritm.lr"), else a key of that name elsewhere ("lr")."""
    section, _, name = word.rpartition(".")
    siblings = {choice.rpartition(".")[2]: choice for choice in choices if choice.rpartition(".")[0] == section}
    if siblings:
        if near := difflib.get_close_matches(name, list(siblings), n=1, cutoff=0.6):
            return siblings[near[0]]
    elif near := difflib.get_close_matches(word, choices, n=1, cutoff=0.6):
        return near[0]
    elsewhere = {choice.rpartition(".")[2]: choice for choice in reversed(choices)}
    near = difflib.get_close_matches(name, list(elsewhere), n=1, cutoff=0.8)
    return elsewhere[near[0]] if near else None
