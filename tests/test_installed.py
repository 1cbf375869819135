"""What an installation leaves on a machine: one name, marl_tune, beside which a user's own envs and modules work."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("marl_tune", "envs", "modules", "conf", "sweeps")
BUILD = "import sys, hatchling.build as b; b.build_wheel(sys.argv[1]); b.build_editable(sys.argv[2])"
SHORT = ("stop.iterations=1", "selection.episodes=2", "logger=csv", "results_dir=out")
BY_RAY = (
    *("search=random", "search.num_samples=1", "+space.algorithm.lr.uniform=[1e-4,1e-3]", "cluster.num_cpus=2"),
    *("algorithm.train_batch_size=150", "algorithm.minibatch_size=75", "cluster.num_envs_per_env_runner=2"),
    *("evaluation.episodes=1", "selection.top_k=1"),
)
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folders into which the wheel and the editable wheel of this repository are unpacked."""
    folders = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("editable")
    subprocess.run([sys.executable, "-c", BUILD, *map(str, folders)], cwd=ROOT, check=True, capture_output=True)
    for folder in folders:
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        wheel.unlink()
    return folders


@pytest.fixture
def abroad(tmp_path):
    """A folder of a user's with packages that are called like ours."""
    for name in FOLDERS[1:]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not ours')")
    return tmp_path


def python(folder: Path, site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder, with what is installed in `site` and what this environment has otherwise."""
    environment = {**ENVIRONMENT, "PYTHONPATH": str(site), "WANDB_MODE": "offline"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )


def sources(root: Path, folders: dict[str, str]) -> set[str]:
    return {
        f"{inside}/{path.relative_to(root / folder).as_posix()}"
        for folder, inside in folders.items()
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_is_one_package_that_holds_every_file(built):
    wheel, _ = built
    assert {path.name for path in wheel.iterdir() if not path.name.endswith(".dist-info")} == {"marl_tune"}
    where = {name: name if name == "marl_tune" else f"marl_tune/{name}" for name in FOLDERS}
    assert sources(wheel, {"marl_tune": "marl_tune"}) == sources(ROOT, where)


def test_an_editable_installation_leads_to_the_repository_by_the_one_name(built, abroad, tmp_path_factory):
    _, editable = built
    left = [path for path in editable.rglob("*") if path.is_file() and ".dist-info" not in str(path)]
    assert left == [editable / "marl_tune" / "__init__.py"], "no .pth"
    code = "import marl_tune, marl_tune.envs as e; print(marl_tune.__file__, e.__file__)"
    done = python(abroad, editable, "-c", code)
    assert done.stdout.split() == [str(ROOT / name / "__init__.py") for name in ("marl_tune", "envs")], done.stderr
    assert python(abroad, editable, "-m", "marl_tune", "--cfg", "job").stderr == ""
    for name in FOLDERS[1:]:
        done = python(tmp_path_factory.mktemp("nowhere"), editable, "-c", f"import {name}")
        assert f"No module named '{name}'" in done.stderr


@pytest.mark.parametrize("name", FOLDERS[1:])
def test_the_names_of_our_folders_are_the_users(name, built, tmp_path):
    wheel, _ = built
    assert f"No module named '{name}'" in python(tmp_path, wheel, "-c", f"import {name}").stderr
    (tmp_path / f"{name}.py").write_text("mine = True")
    code = f"import {name}, marl_tune.{name} as ours; print({name}.mine, ours.__file__)"
    done = python(tmp_path, wheel, "-c", code)
    assert done.stdout.split() == ["True", str(wheel / "marl_tune" / name / "__init__.py")], done.stderr


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--help"], "+experiment=ant_colony"),
        (["+experiment=debug", "--cfg", "job"], "name: debug"),
        (["-cn", "ant_colony_pbt", "--cfg", "job"], "name: ant_colony_pbt"),
        (["+experiment=debug", "dry_run=true"], "resources"),
        (["+experiment=debug", "search=none", "search.num_samples=1", *SHORT], "best: trial"),
        pytest.param(
            ["env=pettingzoo", "env.id=mpe/simple_spread_v3", "env.workers=2", *BY_RAY, *SHORT],
            "best: trial",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["help", "settings", "sweep", "plan", "run", "processes"],
)
def test_it_runs_among_a_users_own_packages(words, shown, built, abroad):
    wheel, _ = built
    done = python(abroad, wheel, "-m", "marl_tune", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout
    assert str(ROOT) not in done.stdout
