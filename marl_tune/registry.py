"""The options of a group, by name: those of marl_tune and those of plug-in packages, read in the same way.

A plug-in package declares Python entry points (https://packaging.python.org/specifications/entry-points/). Every
process reads them when it asks for the first option, so worker processes know them too. Nothing of a package is
imported before one of its options is loaded.

This file imports the standard library only. Every part of marl_tune may import it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

OURS = "marl_tune"
CONF_GROUPS = {
    "marl_tune.envs": "env",
    "marl_tune.modules": "module",
    "marl_tune.sharing": "sharing",
    "marl_tune.algorithms": "algorithm",
    "marl_tune.searches": "search",
    "marl_tune.callbacks": "callback",
}
# group of entry points -> group of conf/; callbacks have no values, so no folder of conf/


class BrokenPlugIn(ValueError):
    """An option of a plug-in package cannot be used. The text is one line: package, entry point and error."""


@dataclass(frozen=True)
class Option:
    """One option of a group.

    The dataclass of its settings is the one that marl_tune's own line names. Without one, and for every plug-in, it is
    `<Name>Config` of the module `schemas` in the package that holds the class (or function), where there is one, and
    else the attribute `Config` of the class. For a function `round_robin`, <Name> is RoundRobin.
    """

    name: str
    entry_points: str  # group of entry points, such as marl_tune.envs
    place: str  # package.module:Name of the class or function
    origin: str | None = None  # distribution and version, such as "my-package 1.0"; None: marl_tune itself
    config_place: str | None = None  # package.module:Name of the dataclass, where the line says so

    @property
    def group(self) -> str:
        """The group of conf/, such as env."""
        return CONF_GROUPS[self.entry_points]

    @property
    def package(self) -> str:
        """The top-level package."""
        return re.split(r"[.:]", self.place, maxsplit=1)[0]

    @property
    def values(self) -> Path:
        """The YAML file of its values, conf/<group>/<name>.yaml of the package; it need not exist."""
        return conf_folder(self.package) / self.group / f"{self.name}.yaml"

    def load(self) -> Any:
        """The class or function. Raises BrokenPlugIn where that of a plug-in cannot be imported."""
        return self._tried(lambda: imported(self.place))

    def config_class(self) -> type:
        """The dataclass of its settings. Raises BrokenPlugIn where that of a plug-in is missing."""
        return self._tried(self._config_class)

    def check_values(self) -> None:
        """Raises BrokenPlugIn where the YAML file of a plug-in is missing. Callbacks have none."""
        if self.origin is not None and self.group != "callback" and not self.values.is_file():
            raise self.broken(f"conf/{self.group}/{self.name}.yaml is missing in the package {self.package}")

    def broken(self, error: object) -> BrokenPlugIn:
        """The error that says what is wrong with it."""
        said = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
        where = f"plug-in {self.origin}, entry point {self.entry_points}: {self.name} = {self.place}"
        return BrokenPlugIn(" ".join(f"{where}: {said}".split()))

    def _tried(self, act: Callable[[], Any]) -> Any:
        if self.origin is None:
            return act()
        try:
            return act()
        except Exception as error:  # whatever a stranger's code raises
            raise self.broken(error) from error

    def _config_class(self) -> type:
        if self.config_place is not None:
            return imported(self.config_place)
        module, _, attribute = self.place.partition(":")
        package = module if _is_package(module) else module.rpartition(".")[0]
        name = f"{_camel(attribute)}Config"
        if package and find_spec(f"{package}.schemas") is not None:
            schemas = import_module(f"{package}.schemas")
            if hasattr(schemas, name):
                return getattr(schemas, name)
        found = getattr(imported(self.place), "Config", None)
        if found is None:
            raise AttributeError(
                f"no dataclass of its settings: neither {package}.schemas.{name} nor {attribute}.Config"
            )
        return found


class Registry(Mapping[str, Option]):
    """The options of one group: marl_tune's own lines first, then the entry points of installed packages.

    Args:
        entry_points: the group of entry points, such as marl_tune.envs.
        lines: name -> package.module:Name of marl_tune's own options, or a pair with the place of the dataclass too.
    """

    def __init__(self, entry_points: str, lines: Mapping[str, str | tuple[str, str]]) -> None:
        self.entry_points = entry_points
        self.own: dict[str, Option] = {}  # marl_tune's
        for name, line in lines.items():
            place, config_place = line if isinstance(line, tuple) else (line, None)
            self.own[name] = Option(name, entry_points, place, config_place=config_place)
        self._read: tuple[Option, ...] = ()  # what `declared` gave when the next two were made
        self._options, self._refused = dict(self.own), list[str]()

    def __getitem__(self, name: str) -> Option:
        return self.own[name] if name in self.own else self._merged()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._merged())

    def __len__(self) -> int:
        return len(self._merged())

    def refused(self) -> list[str]:
        """A line for every entry point whose name is taken, or that cannot be read."""
        self._merged()
        return self._refused

    def _merged(self) -> dict[str, Option]:
        found = declared(tuple(sys.path))
        if found is not self._read:  # the first time, and where sys.path has changed since
            self._read, self._options, self._refused = found, dict(self.own), []
            for option in found:
                if option.entry_points == self.entry_points:
                    self._add(option)
        return self._options

    def _add(self, option: Option) -> None:
        taken = self._options.get(option.name)
        if re.fullmatch(r"[\w.]+:[\w.]+", option.place) is None:
            self._refused.append(str(option.broken("must be written name = package.module:Name")))
        elif taken is not None:
            whose = OURS if taken.origin is None else f"plug-in {taken.origin}"
            self._refused.append(str(option.broken(f"the name is taken by {taken.place} of {whose}")))
        else:
            self._options[option.name] = option


@lru_cache(maxsize=8)
def declared(path: tuple[str, ...]) -> tuple[Option, ...]:
    """The entry points of marl_tune's groups in all distributions that lie in the folders of `path`, sorted.

    `importlib.metadata` finds the same, but importing it takes ten times as long as this search.
    """
    found: dict[str, list[Option]] = {}  # distribution -> its entry points; the first on the path counts
    for folder in path:
        try:
            entries = [entry for entry in os.scandir(folder or ".") if entry.name.endswith((".dist-info", ".egg-info"))]
        except OSError:  # a folder that does not exist, or a zip file
            continue
        for entry in sorted(entries, key=lambda entry: entry.name):
            text = _read(entry.path, "entry_points.txt")
            if f"[{OURS}." in text:
                header = _read(entry.path, "METADATA") or _read(entry.path, "PKG-INFO")
                name, version = (_field(header, key) for key in ("Name", "Version"))
                found.setdefault(name, list(_entry_points(text, f"{name} {version}".strip())))
    return tuple(option for name in sorted(found) for option in found[name])


def _read(folder: str, name: str) -> str:
    try:
        return Path(folder, name).read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _field(header: str, key: str) -> str:
    match = re.search(rf"^{key}:\s*(.*?)\s*$", header, re.MULTILINE)
    return match[1] if match else ""


def _entry_points(text: str, origin: str) -> Iterator[Option]:
    section = ""
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("["):
            section = line.strip("[]")
        elif section in CONF_GROUPS and "=" in line and not line.startswith(("#", ";")):
            name, _, place = line.partition("=")
            yield Option(name.strip(), section, place.partition("[")[0].strip(), origin)


@cache
def conf_folder(package: str) -> Path:
    """The folder conf/ of a top-level package, which is not imported; it need not exist."""
    spec = find_spec(package)
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    folders = [Path(place) / "conf" for place in places]
    return next((folder for folder in folders if folder.is_dir()), Path(package) / "conf")


def conf_folders() -> dict[Path, str | None]:
    """Folder of YAML files -> the plug-in (distribution and version) that brings it; None: marl_tune. Ours is first."""
    folders: dict[Path, str | None] = {conf_folder(OURS): None}
    for option in declared(tuple(sys.path)):
        if conf_folder(option.package).is_dir():
            folders.setdefault(conf_folder(option.package), option.origin)
    return folders


def imported(place: str) -> Any:
    """What `package.module:Name` stands for."""
    module, _, attribute = place.partition(":")
    found: Any = import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _is_package(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.submodule_search_locations is not None


def _camel(name: str) -> str:
    """The name of a class from that of a function; that of a class is left as it is."""
    return "".join(part.capitalize() for part in name.split("_")) if name.islower() else name
