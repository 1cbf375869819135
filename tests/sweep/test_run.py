"""Whole sweeps: every search in this process, and the public command line from another folder."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from marl_tune.evaluate import evaluate
from marl_tune.results.callback import SweepCallback
from marl_tune.results.checkpoint_folder import find_policy
from marl_tune.results.run_folder import RunFolder
from marl_tune.sweep import session
from marl_tune.sweep.run import run
from marl_tune.validation.validate import validate

SEEDS = "+space.seed.grid=[1,2]"
OF_SIZES = "+space.module.hidden_dims.choice=[[8],[16,16]]"
CONTRACT = ["config.yaml", "manifest.json", "tune", "trials.csv", "progress.csv", "best", "report.html", "summary.json"]
SUMMARY = ["status", "name", "seed", "metric", "mode", "wall_time_s", "env_steps", "agent_steps", "trials", "best"]


def only_run(results: Path) -> Path:
    (folder,) = [path.parent for path in results.rglob("config.yaml") if path.parent.name != "best"]
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():  # lineage.csv is written at the first exploit
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def finished(sweep) -> Path:
    validate(sweep)
    assert run(sweep, ["test"]) == 0
    folder = only_run(Path(sweep.results_dir))
    for name in CONTRACT:
        assert (folder / name).exists(), name
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary) == SUMMARY
    assert summary["best"]["trial"] in {trial["id"] for trial in summary["trials"]}
    return folder


@pytest.mark.usefixtures("ray_session")
class TestSearches:
    """One tiny sweep for each way to search."""

    @pytest.mark.parametrize(
        ("words", "trials"),
        [
            (["search=none", "search.num_samples=1"], 1),
            pytest.param(
                ["search=grid", "search.num_samples=1", "+space.algorithm.lr.grid=[1e-3,2e-3]", SEEDS],
                4,
                marks=pytest.mark.slow,
            ),
            (["search=optuna", "search.num_samples=2", "search.n_startup_trials=1", OF_SIZES], 2),
            pytest.param(["search=asha", "search.num_samples=3", "search.grace_period=1"], 3, marks=pytest.mark.slow),
            pytest.param(
                ["search=pb2", "search.num_samples=2", "search.perturbation_interval=1", "stop.iterations=3"],
                2,
                marks=pytest.mark.slow,
            ),
            pytest.param(
                ["search=random", "sharing=independent", "+space.module.choice=[mlp,gru]", "search.num_samples=2"],
                2,
                marks=pytest.mark.slow,
            ),
        ],
        ids=lambda v: v[0] if isinstance(v, list) else str(v),
    )
    def test_it_finishes_with_every_file(self, tiny, words, trials):
        sweep = tiny(*words)
        folder = finished(sweep)
        table = rows(folder / "trials.csv")
        assert len(table) == trials
        assert {row["status"] for row in table} == {"TERMINATED"}
        if "search=optuna" in words:
            assert (folder / "optuna.db").stat().st_size > 0
        if "search=grid" in words:
            points = {(float(row["algorithm.lr"]), int(row["seed"])) for row in table}
            assert points == {(1e-3, 1), (1e-3, 2), (2e-3, 1), (2e-3, 2)}

    @pytest.mark.slow
    def test_pbt_starts_no_more_processes_than_run_at_once(self, tiny, monkeypatch):
        pids: list[int] = []

        class Pids(SweepCallback):
            def on_trial_result(self, iteration, trials, trial, result, **info):
                pids.append(result["pid"])

        make = session.make_callbacks
        monkeypatch.setattr(session, "make_callbacks", lambda *args: [*make(*args), Pids()])
        words = ["search=pbt", "search.num_samples=4", "search.perturbation_interval=1", "stop.iterations=10"]
        folder = finished(tiny(*words, "search.max_concurrent=null"))
        lineage = rows(folder / "lineage.csv")
        assert lineage, "no exploit: the test shows nothing"
        assert len(set(pids)) <= 2, "one actor process for each of the 2 CPUs, whatever PBT does"
        for exploit in lineage:
            assert json.loads(exploit["old"]).keys() == json.loads(exploit["new"]).keys() == {"algorithm.lr"}
            assert 1e-4 <= json.loads(exploit["new"])["algorithm.lr"] <= 1e-2

    @pytest.mark.slow
    def test_pbt_keeps_the_checkpoint_that_a_clone_still_needs(self, tiny):
        words = ["search=pbt", "search.num_samples=4", "search.perturbation_interval=2", "stop.iterations=20"]
        folder = finished(tiny(*words, "checkpoint.frequency=1", "checkpoint.num_to_keep=1", "cluster.max_failures=0"))
        assert rows(folder / "lineage.csv"), "no exploit: the test shows nothing"

    def test_a_trial_that_fails_for_good_leaves_the_others_selected(self, tiny):
        sweep = tiny("search=grid", "search.num_samples=1", "+space.algorithm.lr.grid=[1e-3,1e35]", "stop.iterations=6")
        assert run(sweep, ["test"]) == 1
        folder = only_run(Path(sweep.results_dir))
        summary = json.loads((folder / "summary.json").read_text())
        by_status = {trial["status"]: trial for trial in summary["trials"]}
        assert summary["status"] == "failed"
        assert "non-finite" in by_status["ERROR"]["error"]
        assert summary["best"]["trial"] == by_status["TERMINATED"]["id"]

    def test_the_end_of_the_time_is_no_interruption(self, tiny):
        sweep = tiny("search=none", "stop.iterations=100000", "stop.wall_time_s=6")
        assert run(sweep, ["test"]) == 0


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "marl_tune", *words]


ENVIRONMENT = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}


@pytest.fixture(scope="module")
def pbt_run(tmp_path_factory):
    """A PBT sweep by the public command, from a folder of its own, with W&B offline."""
    home = tmp_path_factory.mktemp("elsewhere")
    words = [
        "+experiment=debug",
        "search=pbt",
        "search.num_samples=4",
        "search.perturbation_interval=1",
        "stop.iterations=10",
        "logger=all",
        "cluster.num_cpus=2",
        "results_dir=out",
    ]
    done = subprocess.run(command(*words), cwd=home, capture_output=True, text=True, env=ENVIRONMENT, timeout=200)
    assert done.returncode == 0, done.stderr
    return home, done


def test_the_command_leaves_the_run_folder_of_the_contract(pbt_run):
    home, done = pbt_run
    folder = only_run(home / "out")
    assert {path.name for path in home.iterdir()} == {"out"}, "something was written outside results_dir"
    for name in [*CONTRACT, "lineage.csv", "tensorboard", "wandb"]:
        assert (folder / name).exists(), name
    assert yaml.safe_load((folder / "config.yaml").read_text())["search"]["name"] == "pbt"
    assert "best: trial" in done.stdout
    assert "Traceback" not in done.stderr
    progress = rows(folder / "progress.csv")
    for trial in {row["trial"] for row in progress}:
        numbers = [int(row["row"]) for row in progress if row["trial"] == trial]
        assert numbers == list(range(1, len(numbers) + 1))  # a copy of an older trial ends with fewer than 10


def test_every_row_is_in_the_wandb_files(pbt_run):
    from test_wandb import history, runs_of

    home, _ = pbt_run
    folder = only_run(home / "out")
    progress = rows(folder / "progress.csv")
    assert rows(folder / "lineage.csv"), "no exploit: the test shows nothing"
    for trial in sorted({row["trial"] for row in progress}):
        (run_folder,) = runs_of(RunFolder.open(folder), trial)
        written = history(run_folder)
        expected = [int(row["agent_steps"]) for row in progress if row["trial"] == trial]
        assert [int(row["agent_steps"]) for row in written] == expected


def test_evaluate_prints_the_summarys_numbers(pbt_run):
    home, _ = pbt_run
    folder = only_run(home / "out")
    words = [sys.executable, "-m", "marl_tune.evaluate", str(folder), "--json"]
    done = subprocess.run(words, cwd=home, capture_output=True, text=True, timeout=100)
    printed = json.loads(done.stdout)
    best = json.loads((folder / "summary.json").read_text())["best"]["evaluation"]
    assert {key: printed[key] for key in best} == best
    assert printed["explore"] is False
    drawn, greedy = (evaluate(find_policy(str(folder), "PATH"), 40, explore=explore) for explore in (True, False))
    assert drawn["explore"]
    # Not the return: food is found in one or two of these 40 short episodes, or in none, and often in equally many.
    assert drawn["pheromone_coverage"] != greedy["pheromone_coverage"]


def test_evaluate_refuses_a_folder_without_a_policy(tmp_path):
    words = [sys.executable, "-m", "marl_tune.evaluate", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: PATH must be")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_multirun_is_two_runs_and_the_same_seed_is_the_same_run(tmp_path):
    words = ["-m", "+experiment=debug", "search=random", "seed=7,7", "cluster.num_cpus=1", "results_dir=out"]
    done = subprocess.run(command(*words), cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT, timeout=200)
    assert done.returncode == 0, done.stderr
    first, second = sorted(path.parent for path in (tmp_path / "out").rglob("summary.json"))
    columns = ["row", "agent_steps", "return_mean_agent", "learners/shared/policy_loss", "learners/shared/entropy"]
    curves = [
        sorted([row["trial"].split("_")[1], *(row[c] for c in columns)] for row in rows(folder / "progress.csv"))
        for folder in (first, second)
    ]
    assert curves[0] == curves[1]
    trials = [sorted(row["algorithm.lr"] for row in rows(folder / "trials.csv")) for folder in (first, second)]
    assert trials[0] == trials[1]
    assert len(set(trials[0])) == 2


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path):
    words = ["+experiment=ant_colony", "dry_run=true"]
    done = subprocess.run(command(*words), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for part in ("4 trials", "20 ants", "10 copies x 100 steps x 20 agents = 20,000 agent-steps", "40 gradient steps"):
        assert part in done.stdout
    assert list(tmp_path.iterdir()) == []


LONG = "+experiment=debug search=random stop.iterations=40 checkpoint.frequency=4 cluster.num_cpus=2 results_dir=out"


def started(home: Path, words: str = LONG) -> tuple[subprocess.Popen, Path]:
    """A long sweep in a process group of its own, once its trials report."""
    process = subprocess.Popen(
        command(*words.split()), cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        for path in (home / "out").rglob("progress.csv") if (home / "out").exists() else []:
            if len(path.read_text().splitlines()) > 16:
                return process, path.parent
        time.sleep(0.2)
    process.kill()
    raise AssertionError(process.communicate()[1])


def resumed(home: Path, folder: Path, trials: int = 2) -> None:
    words = command(f"resume={folder}", "logger.progress=plain")
    done = subprocess.run(words, cwd=home, capture_output=True, text=True, env=ENVIRONMENT, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "ignored: logger.progress=plain" in done.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert [trial["iterations"] for trial in summary["trials"]] == [40] * trials


def assert_each_iteration_once(folder: Path) -> None:
    progress = rows(folder / "progress.csv")
    for trial in {row["trial"] for row in progress}:
        iterations = [int(row["iteration"]) for row in progress if row["trial"] == trial]
        assert iterations == list(range(1, 41)), "an iteration is missing or stands twice"


@pytest.mark.slow
def test_an_interrupted_sweep_says_how_to_go_on_and_goes_on(tmp_path):
    process, folder = started(tmp_path)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"python -m marl_tune resume={folder.relative_to(tmp_path)}" in out
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    resumed(tmp_path, folder)
    assert_each_iteration_once(folder)


@pytest.mark.slow
def test_a_killed_sweep_goes_on(tmp_path):
    process, folder = started(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    assert not (folder / "summary.json").exists()
    resumed(tmp_path, folder)
    assert_each_iteration_once(folder)


POPULATION = """+experiment=tictactoe_self_play search=pbt search.num_samples=4 search.perturbation_interval=4
    +space.algorithm.lr.loguniform=[3e-4,3e-3] algorithm.train_batch_size=1024 algorithm.minibatch_size=256
    module.hidden_dims=[32] sharing.pool_size=4 sharing.snapshot.every=2 stop.agent_steps=null stop.iterations=40
    checkpoint.frequency=4 cluster.num_cpus=2 selection.top_k=2 selection.episodes=20 results_dir=out"""


@pytest.mark.slow
def test_a_killed_population_of_self_play_goes_on_without_a_jump(tmp_path):
    process, folder = started(tmp_path, POPULATION)
    process.kill()
    process.communicate(timeout=60)
    killed_at = {trial: len(curve) for trial, curve in ratings(folder).items()}
    resumed(tmp_path, folder, trials=4)
    clones = {(row["to"], int(row["step"])) for row in rows(folder / "lineage.csv")}
    moves, around = [], []
    for trial, curve in ratings(folder).items():
        for place, ((iteration, before), (following, after)) in enumerate(pairwise(curve), start=1):
            if following == iteration + 1 and (trial, iteration) not in clones:  # a clone takes its donor's rating
                near = abs(place - killed_at.get(trial, 0)) <= 4  # back to the last checkpoint, and a little after
                (around if near else moves).append(abs(after - before))
    assert len(around) >= 8
    assert max(around) <= max(moves), "the rating jumps where the sweep was killed"


def ratings(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Trial -> the iteration and the rating of each of its results."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows(folder / "progress.csv"):
        curves.setdefault(row["trial"], []).append((int(row["iteration"]), float(row["self_play/elo"])))
    return curves
