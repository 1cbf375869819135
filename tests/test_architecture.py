"""Rules of the codebase that a machine can check: which package imports which, lengths, one stem per thing."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from marl_tune import envs, modules

ROOT = Path(__file__).parent.parent
PACKAGES = ("marl_tune", "envs", "modules")
SOURCES = sorted(path for package in (*PACKAGES, "tests", "benchmarks") for path in (ROOT / package).rglob("*.py"))
HYDRA_MAY = {"marl_tune/config/compose.py", "marl_tune/config/hydra_errors.py"}
# Package of marl_tune -> the packages that it may import, from the ground up. What is not named, it may not import.
MAY_IMPORT = {
    "registry": "",  # a leaf of the standard library only
    "envs": "registry",
    "modules": "registry",
    "config": "registry envs modules",
    "results": "config",
    "cluster": "config",
    "sharing": "config envs modules",
    "validation": "config results cluster sharing envs modules",
    "sampling": "results sharing envs modules",
    "search": "config results",
    "loggers": "results",
    "live": "results",
    "report": "results",
    "self_play": "config results sharing sampling envs",
    "evaluation": "config results sharing sampling envs",
    "learning": "results sharing sampling envs modules",
    "algorithms": "config sharing sampling learning envs modules",
    "trial": "config results cluster sampling self_play algorithms evaluation envs",
    "sweep": "config results cluster sharing sampling learning algorithms evaluation trial search loggers live report "
    "envs",
    "evaluate": "config results cluster evaluation",
    "__main__": "config validation sweep",
    "testing": "config envs modules results cluster algorithms sweep validation",
    "__init__": "",
}
LARGEST = {"packages": 18, "files": 20, "lines": 2500}  # sub-packages count as packages of their own


def module_name(path: Path) -> str:
    """The name under which a source file is imported; that of its package for an __init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "marl_tune" else ("marl_tune", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


OURS = {module_name(path): path for path in SOURCES if path.relative_to(ROOT).parts[0] in PACKAGES}


def imported(path: Path, run: bool = False) -> set[str]:
    """Every module that a file imports, inside functions too, by its full name; `run`: but for type checkers' alone."""
    names = set()
    tree = ast.parse(path.read_text())
    checked = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    left_out = {id(part) for block in checked for node in block.body for part in ast.walk(node)} if run else set()
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in OURS else node.module for name in full}
    return names


def part(module: str) -> str:
    """The package of marl_tune that a module is in; the file, for one that lies in none."""
    _, _, inside = module.partition(".")
    return inside.partition(".")[0] or "__init__"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_where_they_belong_and_nothing_is_too_long(path):
    name, package = path.relative_to(ROOT).as_posix(), path.relative_to(ROOT).parts[0]
    found = {module.partition(".")[0] for module in imported(path, run=True)}
    forbidden = {
        "envs": {"ray", "torch", "hydra", "omegaconf"},
        "modules": {"hydra", "omegaconf"},
        "marl_tune": set() if name in HYDRA_MAY else {"hydra", "omegaconf"},
    }.get(package, set())
    forbidden = forbidden | {"envs", "modules", "conf", "sweeps"}  # these are parts of marl_tune, or strangers
    if name.startswith("envs/vmas"):
        forbidden = forbidden - {"torch"}  # VMAS simulates in it
    assert not found & forbidden, f"{name} imports {found & forbidden}"
    text = path.read_text()
    assert text.count("\n") <= 400, f"{name} has more than 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{name}: {node.name} has more than 60 lines"


@pytest.mark.parametrize("module", OURS)
def test_a_package_imports_only_what_the_table_allows(module):
    here = part(module)
    allowed = {here, *MAY_IMPORT[here].split()}
    others = {other for other in imported(OURS[module]) if other.partition(".")[0] == "marl_tune"}
    assert {other for other in others if part(other) not in allowed} == set()


def test_the_table_has_every_package_and_none_stands_above_one_that_it_imports():
    assert {part(module) for module in OURS} == set(MAY_IMPORT)
    order = list(MAY_IMPORT)
    for package, allowed in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(package) for other in allowed.split())


def test_no_file_imports_itself_by_way_of_others():
    arrows = {module: (imported(path) & OURS.keys()) - {module} for module, path in OURS.items()}
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
    TopologicalSorter(arrows).prepare()


def test_no_package_outgrows_its_purpose():
    packages: dict[Path, list[Path]] = {}
    for path in (ROOT / "marl_tune").rglob("*.py"):
        packages.setdefault(path.parent, []).append(path)
    del packages[ROOT / "marl_tune"]
    assert len(packages) <= LARGEST["packages"]
    assert max(len(files) for files in packages.values()) <= LARGEST["files"]
    for package in {path.relative_to(ROOT / "marl_tune").parts[0] for path in packages}:
        lines = sum(file.read_text().count("\n") for file in (ROOT / "marl_tune" / package).rglob("*.py"))
        assert lines <= LARGEST["lines"], package


def test_schemas_need_neither_torch_nor_ray():
    code = (
        "import sys, marl_tune.config.registry, marl_tune.validation.validate, marl_tune.modules.schemas;"
        "import marl_tune.envs.ant_colony, marl_tune.envs.vmas;"
        "found = {'torch', 'ray'} & set(sys.modules); assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("registry", "package"), [(envs.ENVS, "envs"), (modules.MODULES, "modules")])
def test_one_stem_for_file_and_class(registry, package):
    for stem, place in ((stem, option.place) for stem, option in registry.own.items()):
        camel = "".join(part.capitalize() for part in stem.rpartition("/")[2].split("_"))
        assert place == f"marl_tune.{package}.{stem.replace('/', '.')}:{camel}"
        assert (ROOT / package / f"{stem}.py").is_file() or (ROOT / package / stem / "world.py").is_file()
