"""Rules of the codebase that a machine can check: who imports whom, how long things are, one stem per thing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from marl_tune import envs, modules

ROOT = Path(__file__).parent.parent
PACKAGES = ("marl_tune", "envs", "modules")
SOURCES = sorted(path for package in (*PACKAGES, "tests", "benchmarks") for path in (ROOT / package).rglob("*.py"))
HYDRA_MAY = {"marl_tune/config/compose.py", "marl_tune/config/hydra_errors.py"}


def imported(path: Path) -> set[str]:
    """Packages of every import in a file, those inside functions too: top-level names, or a part of marl_tune."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(name.split(".")[: 2 if name.startswith("marl_tune.") else 1]) for name in names}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way_and_nothing_is_too_long(path):
    name, package = path.relative_to(ROOT).as_posix(), path.relative_to(ROOT).parts[0]
    found = imported(path)
    forbidden = {
        "envs": {"ray", "torch", "hydra", "omegaconf"},
        "modules": {"hydra", "omegaconf"},
        "marl_tune": set() if name in HYDRA_MAY else {"hydra", "omegaconf"},
    }.get(package, set())
    forbidden = forbidden | {"envs", "modules", "conf", "sweeps"}  # these are parts of marl_tune, or strangers
    if package in ("envs", "modules"):
        forbidden |= {part for part in found if part.startswith("marl_tune")} - {f"marl_tune.{package}"}
    if name.startswith("envs/vmas"):
        forbidden = forbidden - {"torch"}  # VMAS simulates in it
    assert not found & forbidden, f"{name} imports {found & forbidden}"
    text = path.read_text()
    assert text.count("\n") <= 400, f"{name} has more than 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{name}: {node.name} has more than 60 lines"


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
    for stem, place in registry.items():
        camel = "".join(part.capitalize() for part in stem.rpartition("/")[2].split("_"))
        assert place == f"marl_tune.{package}.{stem.replace('/', '.')}:{camel}"
        assert (ROOT / package / f"{stem}.py").is_file() or (ROOT / package / stem / "world.py").is_file()
