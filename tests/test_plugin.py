"""Plug-in packages: examples/plugin/ installed beside marl_tune, and packages that are broken."""

import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from marl_tune.registry import CONF_GROUPS, BrokenPlugIn, Registry

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "plugin"
BUILD = "import sys, hatchling.build as b; b.build_wheel(sys.argv[1])"
ORIGIN = "marl-tune-example 0.1.0"
CHOSEN = ("env=gather", "module=residual", "logger=csv", "logger.progress=off")
TRAIN = (
    *(*CHOSEN, "logger.callbacks=[best_so_far]", "search.num_samples=1", "selection.episodes=2"),
    *("algorithm.train_batch_size=160", "algorithm.minibatch_size=80", "cluster.num_envs_per_env_runner=2"),
    *("stop.iterations=1", "selection.top_k=1", "evaluation.episodes=1", "results_dir=out"),
)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A folder into which the wheel of examples/plugin is unpacked, as pip does."""
    site = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-c", BUILD, str(site)], cwd=EXAMPLE, check=True, capture_output=True)
    (wheel,) = site.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def install(site: Path, package: str, entry_points: str, **files: str) -> None:
    """Writes a distribution `<package> 1.0` by hand; `files`: name of a module -> its source."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    (site / package).mkdir()
    for name, source in {"__init__": "", **files}.items():
        (site / package / f"{name}.py").write_text(source)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A folder with packages that are broken in several ways."""
    site = tmp_path_factory.mktemp("broken")
    names = ("faulty", "fileless", "ant_colony")
    lines = "\n".join(["[marl_tune.envs]", *(f"{name} = faulty.world:World" for name in names), ""])
    lines += "[marl_tune.callbacks]\nmute = faulty.world:Mute\n"
    install(site, "faulty", lines, world="import no_such_library")
    values = site / "faulty" / "conf" / "env"
    values.mkdir(parents=True)
    (values / "faulty.yaml").write_text(
        "# Faulty\ndefaults:\n  - /schema/env/faulty@_here_\n  - _self_\nname: faulty\n"
    )
    return site


def marl_tune(folder: Path, sites: list[Path], *words: str) -> subprocess.CompletedProcess[str]:
    """The command line in a folder, with what is installed in `sites`."""
    path = os.pathsep.join(map(str, [ROOT, *sites]))
    return subprocess.run(
        [sys.executable, "-m", "marl_tune", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_help_lists_options_with_their_origin_and_imports_nothing(example, broken, tmp_path):
    done = marl_tune(tmp_path, [example, broken], "--help")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    for name in ("gather", "residual"):
        (line,) = [words for words in lines if words[:1] == [name]]
        assert " ".join(line[-2:]) == f"[{ORIGIN}]"
    assert f"best_so_far  marl_tune_example.best_so_far:BestSoFar [{ORIGIN}]" in done.stdout
    assert "faulty" in done.stdout
    warned = done.stderr.splitlines()
    assert len(warned) == 2
    assert "plug-in faulty 1.0, entry point marl_tune.envs: fileless = faulty.world:World" in warned[0]
    assert "conf/env/fileless.yaml is missing" in warned[0]
    assert "ant_colony = faulty.world:World: the name is taken by marl_tune" in warned[1]


def test_a_broken_plug_in_is_told_and_does_no_harm(example, broken, tmp_path):
    done = marl_tune(tmp_path, [example, broken], *CHOSEN, "module.num_blocks=4", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "num_blocks: 4" in done.stdout
    warned = done.stderr.splitlines()
    assert len(warned) == 3
    assert all(line.startswith("warning: plug-in faulty 1.0, entry point marl_tune.envs: ") for line in warned)
    assert "taken by marl_tune.envs.ant_colony:AntColony of marl_tune" in warned[0]
    assert "faulty = faulty.world:World: ModuleNotFoundError: No module named 'no_such_library'" in warned[1]
    assert "conf/env/fileless.yaml is missing" in warned[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["env=faulty"], "faulty = faulty.world:World: ModuleNotFoundError: No module named 'no_such_library'"),
        (["env=fileless"], "conf/env/fileless.yaml is missing in the package faulty"),
        ([*CHOSEN, "module.num_block=1"], "key 'module.num_block' is not known: did you mean 'module.num_blocks'?"),
        ([*CHOSEN, "module.num_blocks=0"], "module.num_blocks must be at least 1, got 0"),
        ([*CHOSEN, "logger.callbacks=[best_sofar]"], "did you mean 'best_so_far'?"),
        ([*CHOSEN, "logger.callbacks=[mute]"], "mute = faulty.world:Mute: ModuleNotFoundError"),
        (["env=gater"], "env 'gater' is not known: did you mean 'gather'?"),
    ],
    ids=["import", "file", "key", "value", "callback", "mute", "option"],
)
def test_what_is_wrong_with_the_chosen_option_is_an_error(words, said, example, broken, monkeypatch, capsys):
    from marl_tune.__main__ import main

    for site in (example, broken):
        monkeypatch.syspath_prepend(site)
    assert main(words) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert said in error


def test_it_trains(example, tmp_path):
    words = ("search=none", "env.step_cost=0.25", "module.num_blocks=3")
    done = marl_tune(tmp_path, [example], *TRAIN, *words)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    (run,) = (tmp_path / "out" / "sweep").iterdir()
    assert set(json.loads((run / "best_so_far.json").read_text())) == {"trial", "return_mean_agent"}
    assert "step_cost: 0.25" in (run / "config.yaml").read_text()


@pytest.mark.slow
def test_its_keys_are_searched_by_trials_in_processes_of_ray(example, tmp_path):
    space = ("+space.env.step_cost.uniform=[0.2,0.3]", "+space.module.num_blocks.choice=[1,3]", "cluster.num_cpus=2")
    done = marl_tune(tmp_path, [example], *TRAIN, "search=random", *space)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    (run,) = (tmp_path / "out" / "sweep").iterdir()
    (row,) = csv.DictReader((run / "trials.csv").open())
    assert 0.2 <= float(row["env.step_cost"]) <= 0.3
    assert row["module.num_blocks"] in ("1", "3")
    best = json.loads((run / "best_so_far.json").read_text())
    assert set(best) == {"trial", "return_mean_agent"}


def test_the_contract_kit_runs_on_its_options(example, monkeypatch):
    monkeypatch.syspath_prepend(example)
    from marl_tune.testing import check_env, check_module

    check_env("gather", steps=25, max_steps=10)
    check_module("residual")


def test_registries_follow_the_path_and_refuse_names_that_are_taken(tmp_path, monkeypatch):
    registry = Registry("marl_tune.searches", {"mine": "json:loads"})
    assert list(registry) == ["mine"]
    site = tmp_path / "site"
    schemas = "class RoundRobinConfig: pass"
    lines = "[marl_tune.searches]\nround = turns.order:round_robin\nbad = turns\n[other]\nx = y:z\n"
    install(site, "turns", lines, order="def round_robin(): return 1", schemas=schemas)
    install(site, "zlate", "[marl_tune.searches]\nround = zlate:late\nmine = zlate:late\n")
    monkeypatch.syspath_prepend(site)
    assert list(registry) == ["mine", "round"]
    option = registry["round"]
    assert (option.origin, option.group) == ("turns 1.0", "search")
    assert option.load()() == 1
    assert option.config_class().__name__ == "RoundRobinConfig"
    malformed, twice, ours = registry.refused()
    assert "bad = turns: must be written name = package.module:Name" in malformed
    assert "zlate 1.0" in twice
    assert "taken by turns.order:round_robin of plug-in turns 1.0" in twice
    assert "taken by json:loads of marl_tune" in ours
    with pytest.raises(BrokenPlugIn, match=r"conf/search/round\.yaml is missing"):
        option.check_values()


def test_there_is_a_registry_for_each_group_of_entry_points():
    from marl_tune.config.registry import CALLBACKS, REGISTRIES

    registries = [*REGISTRIES.items(), ("callback", CALLBACKS)]
    assert {registry.entry_points: group for group, registry in registries} == CONF_GROUPS
    for _, registry in registries:
        for option in registry.own.values():
            assert callable(option.load())
            assert option.config_class().__name__.endswith("Config")
