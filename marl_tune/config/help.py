"""`--help`: the groups with their options, each with the first comment line of its YAML file, and commands to copy.

Reads the folders conf/ of marl_tune and of plug-in packages as text, without Hydra, and imports none of their code.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from marl_tune.registry import BrokenPlugIn, Option, conf_folders, declared

ORDER = ("experiment", "env", "module", "sharing", "algorithm", "search", "logger", "cluster")

HEAD = """usage: python -m marl_tune [key=value ...] [-m] [-cd FOLDER] [-cn NAME] [--cfg job]

Hyper-parameter sweeps in multi-agent reinforcement learning. Choose an option of each group, change any key:

  python -m marl_tune +experiment=ant_colony                       run a ready experiment
  python -m marl_tune +experiment=ant_colony search=optuna algorithm.lr=3e-4
  python -m marl_tune env=ant_colony module=lstm '+space={algorithm.lr:{loguniform:[1e-5,1e-3]}}' search=random
  python -m marl_tune -m +experiment=ant_colony module=mlp,plasticity seed=1,2,3     a job for each combination
  python -m marl_tune -cn ant_colony_pbt                           a ready sweep
  python -m marl_tune -cd FOLDER -cn NAME                          a sweep of yours, FOLDER/NAME.yaml
  python -m marl_tune resume=results/ant_colony/2026-11-21_10-00-00
  python -m marl_tune +experiment=ant_colony dry_run=true          build and step all parts once, print the plan
  python -m marl_tune +experiment=ant_colony --cfg job             print every setting"""

TAIL = """Keys of no group:
  name seed space evaluation breakthroughs checkpoint stop selection results_dir resume dry_run
Meaning, unit and range of every key: marl_tune/config/schema/sweep.py, envs/, modules/schemas.py
Exit codes: 0 all trials finished; 1 a trial failed; 2 a setting is wrong; 130 interrupted
More flags (completion of a shell, search path): --hydra-help"""


def is_asked(words: list[str]) -> bool:
    """Whether the command line asks for help."""
    return "--help" in words or "-h" in words


def text() -> str:
    """The whole help."""
    parts = [HEAD]
    for group in ORDER:
        head = f"{group} (added with a plus sign, +{group}=...)" if group == "experiment" else group
        parts.append(_section(head, described(group)))
    if callbacks := {option.name: f"{option.place} [{option.origin}]" for option in _plug_ins("callback")}:
        parts.append(_section("logger.callbacks (a list of names)", callbacks))
    return "\n\n".join([*parts, TAIL])


def _section(head: str, options: dict[str, str]) -> str:
    width = max(len(name) for name in options)
    return "\n".join([head, *(f"  {name:<{width}}  {line}" for name, line in options.items())])


def described(group: str) -> dict[str, str]:
    """Option -> the first comment line of its file that is not a directive to Hydra, in alphabetical order; of a
    plug-in's, also the distribution and its version."""
    found: dict[str, str] = {}
    for folder, origin in conf_folders().items():
        for name, line in _described(folder / group, ""):
            found.setdefault(name, line if origin is None else f"{line} [{origin}]".lstrip())
    return {name: found[name] for name in sorted(found)}


def problems() -> list[str]:
    """A line for every plug-in's option that is not listed, because its file is missing or its name is ours."""
    lines: list[str] = []
    ours = next(iter(conf_folders()))
    for option in _plug_ins():
        try:
            if (ours / option.group / f"{option.name}.yaml").is_file():
                raise option.broken("the name is taken by marl_tune's own option")
            option.check_values()
        except BrokenPlugIn as error:
            lines.append(str(error))
    return lines


def _plug_ins(group: str | None = None) -> list[Option]:
    return [option for option in declared(tuple(sys.path)) if group in (None, option.group)]


def _described(folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """(option, comment) of the files in a folder and in those below it: mpe/simple_tag.yaml is mpe/simple_tag."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir():
            yield from _described(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            yield prefix + entry.name.removesuffix(".yaml"), _first_comment(entry.read_text("utf-8"))


def _first_comment(source: str) -> str:
    comments = (line[2:] for line in source.splitlines() if line.startswith("# ") and not line.startswith("# @package"))
    return next(comments, "")
