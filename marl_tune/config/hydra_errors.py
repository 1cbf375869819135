"""Hydra's and OmegaConf's errors, said as ours: one line with the key, the value and the rule."""

import os
import re
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, InterpolationResolutionError, OmegaConfBaseException

from marl_tune.config.errors import ConfigError, unknown
from marl_tune.config.help import described
from marl_tune.config.registry import GROUPS, options

RULES = {
    "Float": "be a number",
    "Integer": "be a whole number",
    "Boolean": "be true or false",
    "a valid bool": "be true or false",
    "ListConfig": "be a list",
    "subclass": "be a mapping",
    "not Optional": "not be null",
}  # a word of OmegaConf's message on a value of the wrong type -> the rule that the value broke


def translate(error: Exception, words: list[str], broken: Mapping[tuple[str, str], str]) -> Exception:
    """The `ConfigError` that says what `error`, raised while composing the command line's `words`, means; an error
    that is not about settings is handed back as it is.

    Args:
        broken: (group, option) of each plug-in's option that cannot be used -> why.
    """
    if isinstance(error, ConfigError):
        return error
    if isinstance(error, MissingConfigException):
        return _missing_config(error, broken)
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _rejected(cause, str(error), words)
    if isinstance(error, ConfigCompositionException):
        return _not_composed(error, words)
    return _crashed(error, words)


def _missing_config(error: MissingConfigException, broken: Mapping[tuple[str, str], str]) -> ConfigError:
    """An option, a group or a primary config that is not there."""
    text = str(error)
    for (group, option), why in broken.items():
        if re.search(rf"Could not (find|load) '(schema/)?{re.escape(f'{group}/{option}')}'", text):
            return ConfigError(why)
    found = re.search(r"Could not find '([^']+)'", text)
    if found is None:
        return ConfigError(f"{text.splitlines()[0]} Give its folder by -cd and its name, without .yaml, by -cn")
    group, _, option = found[1].partition("/")
    listed = re.search(r"Available options in '[^']*':\n((?:\t.+\n?)+?)(?=Config search path|\Z)", text)
    if listed is None:
        return ConfigError(text.splitlines()[0])
    in_folders = described(group) if group in GROUPS else []  # Hydra lists those of one folder only
    return unknown(group, option, {*listed[1].split(), *in_folders})


def _unreadable(error: OverrideParseException) -> ConfigError:
    """A word that is not of the form key=value."""
    word = error.override
    if "missing EQUAL" in str(error):
        return ConfigError(f"{word!r} must be written key=value (a group is chosen so too: search=optuna)")
    reason = next(line for line in str(error).splitlines() if not line.startswith(("Error parsing", "See ")))
    return ConfigError(f"{word!r} cannot be read, {reason}: quote it so that the shell leaves it alone, 'key=[1,2]'")


def _rejected(cause: OmegaConfBaseException, text: str, words: list[str]) -> ConfigError:
    """A key that the config does not have, or a value that its type does not take; `text` is Hydra's own message."""
    reason, key = str(cause).splitlines()[0], str(cause.full_key)
    merged = re.match(r"Error merging override [+~]*([^=]+)", text)
    if merged is not None and not key.startswith(merged[1]):
        key = merged[1]
    if isinstance(cause, InterpolationResolutionError):
        return ConfigError(f"{key} must refer to a key that exists, got {_value(key, words)!r} ({reason})")
    if "does not support deletion" in reason:
        return ConfigError(f"{key} cannot be taken out with ~: it must have a value (null where that is allowed)")
    if isinstance(cause, ConfigKeyError | AttributeError) and "not in" in reason:
        return _unknown_key(cause, next((word for word in _keys(words) if f"{word}.".startswith(f"{key}.")), key))
    rule = next((rule for sign, rule in RULES.items() if sign in reason), None)
    if rule is None:
        return ConfigError(f"{key}: {reason}, got {_value(key, words)!r}")
    return ConfigError(f"{key} must {rule}, got {_value(key, words)!r}")


def _unknown_key(cause: OmegaConfBaseException, key: str) -> ConfigError:
    """A dotted key that is not in the composed config."""
    root: Any = cause.parent_node._get_root() if cause.parent_node is not None else None
    valid = list(_tree(root)) if isinstance(root, DictConfig) else []
    section = key.rpartition(".")[0]
    if re.match(r"space\.|env\.kwargs\.|sharing\.roles\.", key):  # mappings with keys of the user's own
        return ConfigError(f"{key} must be added with a plus sign: +{key}=...")
    if section in valid and OmegaConf.select(root, section) in (None, {}):  # Hydra has made {} of null on its way
        return ConfigError(f"{key} must be set with its whole section, {section}={{...}}, for {section} is null")
    return unknown("key", key, valid)


def _not_composed(error: ConfigCompositionException, words: list[str]) -> ConfigError:
    """What Hydra itself refuses, in its own words but for the usual slips."""
    text = str(error)
    if found := re.match(r"In '(.+)': ConfigKeyError raised while composing config:\nKey .+\n +full_key: (.+)", text):
        return _set_by_a_file(found[1], found[2], words)
    if found := re.match(r"Ambiguous value for argument '(.+)'", text):
        return ConfigError(f"{found[1]} must be one value: add -m to run a job for each, or write a list as [a,b]")
    if found := re.match(r"Could not override '(.+)'\. No match in the defaults list\.", text):
        return ConfigError(f"{found[1]} must be added with a plus sign: +{found[1]}=...")
    if found := re.match(r"Could not delete from config\. '(.+)' does not exist", text):
        return ConfigError(f"{found[1]} cannot be taken out with ~: there is no such key")
    if found := re.match(r"Could not append to config\. An item is already at '(.+)'", text):
        return ConfigError(f"{found[1]} must be written without the plus sign: it is there already")
    return ConfigError(". ".join(text.splitlines()[:2]))


def _set_by_a_file(file: str, key: str, words: list[str]) -> ConfigError:
    """A file of `conf/`, such as an experiment, sets what the chosen option of a group does not have."""
    group = key.partition(".")[0]
    typed = [word for word in words if word.startswith(f"{group}=")]
    rule = f"have the key {key}, which {file} sets: choose another option, or leave {file} out"
    return ConfigError(f"{typed[-1] if typed else group} must {rule}")


def _crashed(error: Exception, words: list[str]) -> Exception:
    """Hydra trips over these words instead of judging them."""
    for word in words:
        key, _, value = word.partition("=")
        if key.lstrip("+") in GROUPS and value not in options(key.lstrip("+")):
            return ConfigError(f"{key} must be one of {', '.join(options(key.lstrip('+')))}, got {value!r}")
        if "=" in word and not key:
            return ConfigError(f"{word!r} must be written key=value")
    frames = traceback.extract_tb(error.__traceback__)
    by_hydra = bool(frames) and f"{os.sep}hydra{os.sep}" in frames[-1].filename
    return ConfigError(str(error)) if by_hydra and isinstance(error, ValueError | HydraException) else error


def _keys(words: list[str]) -> list[str]:
    """The dotted keys among the words."""
    return [word.partition("=")[0].lstrip("+~") for word in words if "=" in word]


def _value(key: str, words: list[str]) -> str:
    """The value typed for a key or for what holds it; empty where a file gave it."""
    typed = [word for word in words if "=" in word and key.startswith(word.partition("=")[0].lstrip("+"))]
    return typed[-1].partition("=")[2] if typed else ""


def _tree(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a composed config, sections included, Hydra's own left out."""
    for name in (str(name) for name in node):
        if prefix == "" and name == "hydra":
            continue
        yield f"{prefix}{name}"
        child = None if OmegaConf.is_missing(node, name) else node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none():
            yield from _tree(child, f"{prefix}{name}.")
