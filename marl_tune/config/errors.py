"""The error that a wrong setting raises, and its wording."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A setting is wrong. The message is one line that names the dotted key, the rule and the value."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class OtherVersion(ConfigError):
    """This version cannot read a checkpoint."""


def invalid(key: str, rule: str, value: object) -> ConfigError:
    """The error for a `value` that breaks a `rule`, such as "algorithm.lr must be above 0, got -1.0"."""
    return ConfigError(f"{key} must {rule}, got {value!r}")


def unknown(what: str, word: str, valid: Iterable[str]) -> ConfigError:
    """The error for a `word` that is not one of `valid`. It names the nearest valid word, or all if they are few."""
    choices = sorted(valid)
    return ConfigError(f"{what} {word!r} is not known{suggestion(word, choices)}")


def suggestion(word: str, choices: list[str]) -> str:
    """The end of a message: ": did you mean 'x'?", the list of choices if it is short, both, or nothing."""
    near = _nearest(word, choices)
    section = word.rpartition(".")[0]
    same = [choice for choice in choices if choice.rpartition(".")[0] == section] if section and not near else choices
    few = f" (valid: {', '.join(same)})" if 0 < len(same) <= (12 if near else 24) else ""
    return f": did you mean {near!r}?{few}" if near else few


def _nearest(word: str, choices: list[str]) -> str | None:
    """The choice that was probably meant: a key of the same section ("algorithm.lrr"), the most similar key if there is
    no such section ("algoritm.lr"), or else a key of that name in another section ("lr")."""
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
