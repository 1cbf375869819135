"""From the command line's words to `SweepConfig`: the only place that knows Hydra and OmegaConf.

    CLI words -> hydra.main -> DictConfig -> to_sweep -> SweepConfig

Hydra only composes. What it composed is run after it has returned, so that exit codes, interrupts and tracebacks are
ours, a multirun is judged whole before its first job starts, and Hydra writes nothing.
"""

import contextlib
import dataclasses
import io
import os
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING, DictConfig, OmegaConf

from marl_tune.config import registry
from marl_tune.config.convert import field_types, from_dict, to_dict
from marl_tune.config.errors import ConfigError, invalid
from marl_tune.config.hydra_errors import translate
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.search_space import normalise
from marl_tune.registry import BrokenPlugIn, conf_folders

__all__ = ["compose", "from_dict", "to_dict", "to_sweep"]

# Hydra's flags that take a value.
VALUE_FLAGS = (
    *("-cn", "--config-name", "-cd", "--config-dir", "-cp", "--config-path"),
    *("-c", "--cfg", "-p", "--package", "-i", "--info"),
)
# Hydra's own outputs, all off: the folder of a run is ours to make.
QUIET = (
    "hydra.run.dir=.",
    "hydra.sweep.subdir=.",
    "hydra.output_subdir=null",
    "hydra.job.chdir=false",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
)


class ReadySweeps(SearchPathPlugin):
    """Has Hydra find our sweeps by -cn alone, where the user has none of that name: the folder of -cd is put before the
    provider `schema`, under whose name these therefore lie."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra once it knows conf/."""
        search_path.append(provider="schema", path="pkg://marl_tune.sweeps")


class PlugIns(SearchPathPlugin):
    """Has Hydra find the YAML files of plug-in packages, after ours: a file of a name that we have is not read.

    By their folders, not as pkg://: Hydra would import a package, which may be broken, to look into it.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra once it knows conf/."""
        for folder, origin in conf_folders().items():
            if origin is not None:
                search_path.append(provider=origin, path=f"file://{folder}")


def compose(words: list[str]) -> list[SweepConfig]:
    """The sweeps that the command line's `words` ask for: one; several under -m; none where Hydra answers a question
    (--cfg job, --info). `ConfigError` for what is wrong with any of them; nothing is started or written."""
    broken = _register()
    jobs: list[SweepConfig | Exception] = []

    @hydra.main(version_base="1.3", config_path="pkg://marl_tune.conf", config_name="config")
    def collect(cfg: DictConfig) -> None:
        try:
            jobs.append(_with_group_options(to_sweep(cfg)))
        except Exception as error:  # Hydra would print it; it is raised below instead
            jobs.append(error)

    with tempfile.TemporaryDirectory(prefix="marl_tune_") as scratch, _as_command_line(words, scratch):
        try:
            _one_line_usage(collect)
            for job in jobs:
                if isinstance(job, Exception):
                    raise job
        except Exception as error:
            raise translate(error, words, broken) from error
        finally:
            _tell([*registry.refused(), *broken.values()])
    return [job for job in jobs if isinstance(job, SweepConfig)]


def to_sweep(cfg: DictConfig) -> SweepConfig:
    """The composed config as dataclasses. Refuses a group whose file did not name its schema: Hydra then let any key
    and any type pass."""
    for group in registry.GROUPS:
        _check_typed(group, OmegaConf.select(cfg, group))
    data = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(data, dict)
    plain: dict[str, Any] = {str(key): value for key, value in data.items()}
    if not isinstance(plain.get("space", {}), dict):
        raise invalid("space", "be a mapping from dotted keys to distributions", plain["space"])
    return from_dict(plain | {"space": normalise(plain.get("space", {}))})


def _check_typed(group: str, option: Any) -> None:
    """Refuse a group that is absent, that its file left untyped, or whose `name` was changed to another option's."""
    if not isinstance(option, DictConfig) or "name" not in option:
        raise invalid(group, f"be one of {', '.join(registry.options(group))}", option)
    schema, composed = _typed_for_hydra(registry.schema(group, option.name)), OmegaConf.get_type(option)
    if composed is schema:
        return
    if dataclasses.is_dataclass(composed):
        rule = f"be left as it is (an option is chosen by {group}={option.name})"
        raise invalid(f"{group}.name", rule, option.name)
    line = f"/schema/{group}/{option.name}@_here_"
    raise ConfigError(f"{group} must name its schema in its file (defaults list, first entry {line}), got none")


def _with_group_options(sweep: SweepConfig) -> SweepConfig:
    """Compose every other option of a group that `space` searches, with the same words, for trials to swap to."""
    for group in registry.SWAPPABLE:
        entry = sweep.space.get(group)
        if not isinstance(entry, dict):
            continue
        names = [name for kind, values in entry.items() if kind in ("choice", "grid") for name in values]
        sweep.group_options[group] = {str(name): _compose_option(group, str(name)) for name in names}
    return sweep


def _compose_option(group: str, name: str) -> Any:
    """The group's option `name` as this job's words compose it; words about keys that it does not have are left out."""
    config_name = HydraConfig.get().job.config_name
    bare = getattr(to_sweep(hydra.compose(config_name, [f"{group}={name}"])), group)
    fields, words = field_types(type(bare)), []
    for word in HydraConfig.get().overrides.task:
        key = word.partition("=")[0].lstrip("+~")
        section, _, field = key.partition(".")
        if key == group or (section == group and field.partition(".")[0] not in fields):
            continue
        words.append(word)
    return getattr(to_sweep(hydra.compose(config_name, [*words, f"{group}={name}"])), group)


def _register() -> dict[tuple[str, str], str]:
    """Tell Hydra the schemas, of each group's option as schema/<group>/<option> and of the whole as sweep_schema, and
    where the ready sweeps and the files of plug-ins are.

    Returns:
        (group, option) of each plug-in's option that cannot be used -> why.
    """
    Plugins.instance().register(ReadySweeps)
    Plugins.instance().register(PlugIns)
    store = ConfigStore.instance()
    store.store(name="sweep_schema", node={key: MISSING for key in field_types(SweepConfig) if key != "group_options"})
    broken: dict[tuple[str, str], str] = {}
    for group in registry.GROUPS:
        for name in registry.options(group):
            plug_in = registry.plug_in(group, name)
            try:
                if plug_in is not None:
                    plug_in.check_values()
                folder, _, stem = f"schema/{group}/{name}".rpartition("/")  # an option may lie in a folder
                store.store(group=folder, name=stem, node=_typed_for_hydra(registry.schema(group, name)))
            except Exception as error:
                if plug_in is None:
                    raise
                known = isinstance(error, BrokenPlugIn | ConfigError)
                broken[group, name] = str(error if known else plug_in.broken(error))
    return broken


def _tell(lines: list[str]) -> None:
    """Warn of plug-ins that are left out, but not of one that the error says already."""
    error = sys.exc_info()[1]
    for line in lines:
        if line not in str(error):
            print(f"warning: {line}; it is left out", file=sys.stderr)


@cache
def _typed_for_hydra(schema: Any) -> Any:
    """The schema's fields and types, those that hold further dataclasses left open: OmegaConf can neither merge a
    mapping into one that is null nor add one to a dict of them. `convert` judges them all the same."""
    fields = [(name, Any if _holds_dataclass(kind) else kind) for name, kind in field_types(schema).items()]
    return dataclasses.make_dataclass(schema.__name__, fields)


def _holds_dataclass(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) or any(_holds_dataclass(part) for part in typing.get_args(kind))


def _one_line_usage(collect: Callable[[], None]) -> None:
    """Run Hydra's parser; where it refuses a flag, keep of what it prints the line that says why, and raise that."""
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            collect()
    except SystemExit as stop:
        if stop.code:
            last = (stderr.getvalue().strip().splitlines() or ["Hydra stopped"])[-1]
            raise ConfigError(last.partition(": error: ")[2] or last) from None
    finally:
        if not stderr.getvalue().startswith("usage:"):
            sys.stderr.write(stderr.getvalue())


def _sorted_out(words: list[str]) -> tuple[list[str], list[str]]:
    """(flags with their values, overrides): Hydra's parser refuses a flag between two overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        is_value = before in VALUE_FLAGS and "=" not in word
        (flags if word.startswith("-") or is_value else overrides).append(word)
    return flags, overrides


@contextlib.contextmanager
def _as_command_line(words: list[str], scratch: str) -> Iterator[None]:
    """Show Hydra `words` as its command line, and have it raise errors instead of printing them."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    flags, overrides = _sorted_out(words)
    sys.argv = [argv[0], *QUIET, f'hydra.sweep.dir="{scratch}"', *overrides, *flags]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
