"""One trial in the command's own process: the same run as by Tune, sooner, and without Ray."""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray._common.utils import binary_to_hex

from marl_tune.config.errors import ConfigError
from marl_tune.results.callback import SweepCallback
from marl_tune.results.run_folder import RunFolder
from marl_tune.search.stopping import SweepStopper
from marl_tune.sweep import in_process_driver, session, tune_driver
from marl_tune.sweep.run import processes, run, trains_here
from marl_tune.trial import checkpoint

ALONE = ("search=none", "search.num_samples=1")
CURVE = ("iteration", "agent_steps", "return_mean_agent", "learners/shared/policy_loss")
ENVIRONMENT = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def only_run(results: Path) -> Path:
    (folder,) = [path.parent for path in results.rglob("manifest.json")]
    return folder


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "tune").glob("*/*") if path.is_dir())


def iterations(folder: Path) -> list[int]:
    return [int(row["iteration"]) for row in rows(folder / "progress.csv")]


def curve(folder: Path) -> list[list[str]]:
    return [[row[name] for name in CURVE] for row in rows(folder / "progress.csv")]


class Hook(SweepCallback):
    """Does something when a result arrives; notes what it was told."""

    def __init__(self, act=lambda iteration: None):
        self.act, self.results, self.events = act, [], []

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.results.append(result)
        self.act(result["training_iteration"])

    def on_trial_recover(self, iteration, trials, trial, **info):
        self.events.append("recover")

    def on_trial_error(self, iteration, trials, trial, **info):
        self.events.append("error")


@pytest.fixture
def sweep_of(tiny):
    """Composes a lone trial of the debug sweep."""
    return lambda *words: tiny(*ALONE, *words)


@pytest.fixture
def hooked(monkeypatch):
    """Adds a callback to the next runs: `hooked(Hook())`."""
    make = session.make_callbacks

    def add(hook: Hook) -> Hook:
        monkeypatch.setattr(session, "make_callbacks", lambda *args: [*make(*args), hook])
        return hook

    return add


def ran(sweep, code: int = 0) -> Path:
    assert run(sweep, ["test"]) == code
    return only_run(Path(sweep.results_dir))


# -- the public command ------------------------------------------------------------------------------------------------

PROBE = """
import json, sys
from marl_tune.__main__ import main
code = main(sys.argv[1:])
import psutil, ray
facts = {
    "code": code,
    "ray": ray.is_initialized(),
    "children": [child.name() for child in psutil.Process().children(recursive=True)],
    "modules": sorted({"torch._dynamo", "torch._inductor", "sklearn", "optuna"} & set(sys.modules)),
}
print(json.dumps(facts))
"""


def test_the_command_trains_in_its_own_process_and_leaves_the_folder_of_the_contract(tmp_path):
    words = ["+experiment=debug", *ALONE, "logger=all", "stop.iterations=3", "results_dir=out"]
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        cwd=work,
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "HOME": str(home), "PYTHONPATH": str(Path(session.__file__).parents[2])},
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    *lines, facts = done.stdout.splitlines()
    facts = json.loads(facts)
    assert facts == {"code": 0, "ray": False, "children": ["wandb-core"], "modules": []}
    assert done.stderr == ""
    assert any(line.startswith("best: trial") for line in lines)
    folder = only_run(work)
    files = ["config.yaml", "manifest.json", "tune", "trials.csv", "progress.csv", "report.html", "summary.json"]
    best = ["best/checkpoint/policy.pt", "best/config.yaml", "best/evaluation.json"]
    for name in (*files, *best, "tensorboard", "wandb"):
        assert (folder / name).exists(), name
    assert iterations(folder) == [1, 2, 3]
    assert checkpoints(folder) == ["checkpoint_000000", "checkpoint_000001", "checkpoint_000002"]
    assert not (home / "ray_results").exists(), "a folder outside results_dir"
    assert {path.name for path in work.iterdir()} == {"out"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "marl_tune", *words]


def begun(words: list[str], home: Path, past: int) -> tuple[subprocess.Popen, Path]:
    """The command, started, once progress.csv tells of a later iteration than `past`."""
    process = subprocess.Popen(
        command(*words), cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        for path in home.glob("out/*/*/progress.csv"):
            if [int(row["iteration"]) for row in rows(path) if row["iteration"]][-1:] > [past]:
                return process, path.parent
        time.sleep(0.02)
    process.kill()
    raise AssertionError(process.communicate()[1])


@pytest.mark.slow
def test_interrupted_resumed_killed_resumed_has_every_iteration_once(tmp_path):
    words = ["+experiment=debug", *ALONE, "stop.iterations=120", "checkpoint.frequency=10", "results_dir=out"]
    process, folder = begun(words, tmp_path, past=10)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"python -m marl_tune resume={folder.relative_to(tmp_path)}" in out
    assert summary_of(folder)["status"] == "interrupted"
    (trial,) = summary_of(folder)["trials"]
    assert trial["status"] == "PAUSED"
    reached = trial["iterations"]
    assert iterations(folder) == list(range(1, reached + 1))
    (folder / "summary.json").unlink()

    process, _ = begun([f"resume={folder}"], tmp_path, past=reached + 12)
    process.kill()
    process.communicate(timeout=60)
    assert not (folder / "summary.json").exists()

    done = subprocess.run(
        command(f"resume={folder}"), cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert summary_of(folder)["status"] == "finished"
    assert iterations(folder) == list(range(1, 121)), "an iteration is missing or stands twice"
    assert len({row["trial"] for row in rows(folder / "progress.csv")}) == 1


# -- the same as by Tune -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_session")
class TestBesideTune:
    def test_both_ways_give_the_same_curve_columns_and_checkpoints(self, tiny, tmp_path):
        same = ("stop.iterations=4", "checkpoint.frequency=3", "evaluation.interval=2", "seed=11")
        by_tune = ["search=random", "search.num_samples=1", "+space.algorithm.lr.choice=[2e-3]"]
        here = ran(tiny(*ALONE, *same, "algorithm.lr=2e-3", f"results_dir={tmp_path / 'here'}"))
        tune = ran(tiny(*by_tune, *same, f"results_dir={tmp_path / 'tune'}"))
        assert rows(here / "progress.csv")[0].keys() == rows(tune / "progress.csv")[0].keys()
        for row, expected in zip(rows(here / "progress.csv"), rows(tune / "progress.csv"), strict=True):
            timed = ("trial", "seconds", "per_s", "timer", "_sec_", "time", "sample", "throughput")
            for name in row:
                if not any(word in name for word in timed):
                    assert row[name] == expected[name], name
        assert checkpoints(here) == checkpoints(tune) == ["checkpoint_000000", "checkpoint_000001"]
        first, second = (summary_of(folder)["best"]["evaluation"] for folder in (here, tune))
        assert first == second

    @pytest.mark.slow
    def test_random_search_uses_no_more_processes_than_run_at_once(self, tiny, hooked):
        hook = hooked(Hook())
        ran(tiny("search=random", "search.num_samples=4", "stop.iterations=2", "search.max_concurrent=null"))
        assert len({result["trial_id"] for result in hook.results}) == 4
        assert len({result["pid"] for result in hook.results}) <= 2

    @pytest.mark.slow
    def test_env_runners_are_processes_of_their_own_and_the_trial_is_not(self, sweep_of, hooked):
        hook = hooked(Hook())
        folder = ran(sweep_of("cluster.num_env_runners=1", "stop.iterations=2"))
        assert {result["pid"] for result in hook.results} == {os.getpid()}
        assert iterations(folder) == [1, 2]


@pytest.mark.parametrize(
    ("words", "here", "of_ray"),
    [
        ((), True, 0),
        (("cluster.num_learners=1",), True, 1),
        (("search.num_samples=2", "search.max_concurrent=1"), False, 1),
        (("search=random", "cluster.num_env_runners=1"), False, 2),
        (("cluster=auto", "cluster.address=127.0.0.1:1"), False, 1),
        (("cluster.num_gpus_per_learner=0.5",), False, 1),
    ],
)
def test_where_a_sweep_is_trained(sweep_of, words, here, of_ray):
    sweep = sweep_of(*words)
    assert trains_here(sweep, None) is here
    assert processes(sweep, here) == of_ray


def test_what_tune_began_tune_ends(sweep_of, tmp_path):
    folder = RunFolder.create(tmp_path, "run")
    assert trains_here(sweep_of(), folder)
    folder.tune.mkdir()
    (folder.tune / "experiment_state-2026-11-21_10-00-00.json").write_text("{}")
    assert not trains_here(sweep_of(), folder)


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "length"),
    [
        (("stop.iterations=null", "stop.agent_steps=1200"), 3),
        (("stop.iterations=9", "stop.target=-100"), 1),
        (("stop.iterations=9", "stop.plateau={patience: 2, min_delta: 1000, grace: 0}"), 3),
        (("stop.iterations=null", "stop.wall_time_s=0.001"), 1),
    ],
)
def test_every_stop_rule_ends_it_with_a_checkpoint(sweep_of, words, length):
    folder = ran(sweep_of(*words, "checkpoint.frequency=0"))
    assert iterations(folder) == list(range(1, length + 1))
    assert [trial["status"] for trial in summary_of(folder)["trials"]] == ["TERMINATED"]
    assert len(checkpoints(folder)) == 1


@pytest.mark.parametrize("metric", ["env_runners/episode_return_mean", "evaluation/return_sum_team"])
def test_a_metric_within_another_ranks_and_stops(sweep_of, metric):
    words = ("evaluation.interval=2", f"search.metric={metric}", "stop.target=-100", "stop.iterations=4")
    folder = ran(sweep_of(*words))
    assert len(iterations(folder)) == (2 if metric.startswith("evaluation") else 1)
    assert summary_of(folder)["trials"][0]["score"] > -100


def test_only_the_newest_checkpoints_are_kept(sweep_of):
    folder = ran(sweep_of("stop.iterations=5", "checkpoint.num_to_keep=2"))
    assert checkpoints(folder) == ["checkpoint_000003", "checkpoint_000004"]
    (row,) = rows(folder / "trials.csv")
    assert row["checkpoint"].endswith("checkpoint_000004")


def test_the_first_signal_finishes_and_saves_the_iteration(sweep_of, hooked, tiny):
    hooked(Hook(lambda iteration: iteration == 3 and signal.raise_signal(signal.SIGINT)))
    folder = ran(sweep_of("stop.iterations=6", "checkpoint.frequency=0"), code=130)
    assert iterations(folder) == [1, 2, 3]
    assert len(checkpoints(folder)) == 1
    hooked(Hook())
    assert run(tiny(f"resume={folder}"), ["test"]) == 0
    assert iterations(folder) == [1, 2, 3, 4, 5, 6]


def test_the_second_signal_stops_at_once_and_the_last_checkpoint_counts(sweep_of, hooked, tiny, monkeypatch):
    monkeypatch.setattr(in_process_driver, "SAME_S", 0)

    def twice(iteration: int) -> None:
        if iteration == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    hooked(Hook(twice))
    folder = ran(sweep_of("stop.iterations=5", "checkpoint.frequency=2"), code=130)
    assert checkpoints(folder) == ["checkpoint_000000"]
    assert summary_of(folder)["trials"][0]["status"] == "PAUSED"
    hooked(Hook())
    assert run(tiny(f"resume={folder}"), ["test"]) == 0
    assert iterations(folder) == [1, 2, 3, 4, 5]


def test_a_later_session_keeps_to_the_time_and_the_plateau_of_the_whole_sweep(sweep_of):
    sweep = sweep_of("stop.iterations=null", "stop.wall_time_s=5", "stop.plateau={patience: 2, min_delta: 1, grace: 0}")
    first = SweepStopper(sweep.stop, "score", "max")
    assert not first("a", {"training_iteration": 1, "score": 3.0})
    state = json.loads(json.dumps({**first.get_state(), "seconds": 4.9}))
    later = SweepStopper(sweep.stop, "score", "max")
    later.set_state(state)
    for one in (later, pickle.loads(pickle.dumps(later))):
        assert not one.stop_all()
        assert not one("a", {"training_iteration": 2, "score": 3.0})
        assert one("a", {"training_iteration": 3, "score": 3.0})
        one.set_state({**state, "seconds": 5.1})
        assert one.stop_all()


def test_tunes_state_that_cannot_be_read_is_refused(tiny, tmp_path):
    folder = RunFolder.create(tmp_path, "run")
    folder.tune.mkdir()
    gone = {"_type": "CLOUDPICKLE_FALLBACK", "value": binary_to_hex(b"cmarl_tune.run\ngone\n.")}
    state = {"trial_data": [[json.dumps(gone), "{}"]]}
    (folder.tune / "experiment_state-2026-11-21_10-00-00.json").write_text(json.dumps(state))
    with pytest.raises(ConfigError, match="resume must be a run that this version can read"):
        tune_driver.train(tiny("search=random"), folder, [])


def test_an_interruption_after_the_training_says_how_to_go_on(sweep_of, tiny, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session, "select", interrupted)
        folder = ran(sweep_of(), code=130)
    assert f"resume={folder}" in capsys.readouterr().out
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with RunFolder.open(folder).held(), pytest.raises(ConfigError, match="resume must name a run that no other proc"):
        run(tiny(f"resume={folder}"), ["test"])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    assert run(tiny(f"resume={folder}"), ["test"]) == 0
    assert iterations(folder) == [1, 2], "it trained again"
    assert summary_of(folder)["status"] == "finished"


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_failed_trial_starts_again_from_its_last_checkpoint(sweep_of, hooked, monkeypatch, tmp_path):
    step, failed = in_process_driver.InProcess.step, []

    def fails_once(self):
        if self.iteration == 3 and not failed:
            failed.append(True)
            raise RuntimeError("the node is gone")
        return step(self)

    words = ("stop.iterations=5", "checkpoint.frequency=2", "cluster.max_failures=1")
    expected = ran(sweep_of(*words, f"results_dir={tmp_path / 'expected'}"))
    monkeypatch.setattr(in_process_driver.InProcess, "step", fails_once)
    hook = hooked(Hook())
    folder = ran(sweep_of(*words))
    assert hook.events == ["recover"]
    assert curve(folder) == curve(expected)
    (row,) = rows(folder / "trials.csv")
    assert (row["status"], row["error"]) == ("TERMINATED", "")


def test_a_trial_that_fails_for_good_leaves_its_error_and_exit_code_1(sweep_of, hooked):
    hook = hooked(Hook())
    folder = ran(sweep_of("algorithm.lr=1e35", "stop.iterations=6", "cluster.max_failures=1"), code=1)
    assert hook.events == ["recover", "error"]
    (row,) = rows(folder / "trials.csv")
    (trial,) = summary_of(folder)["trials"]
    assert row["status"] == trial["status"] == "ERROR"
    assert "non-finite" in row["error"]
    assert row["error"] == trial["error"]
    assert "Traceback" in next(folder.glob("tune/*/error.txt")).read_text()


def test_a_checkpoint_that_a_kill_left_half_deleted_does_not_count(sweep_of, tiny):
    folder = ran(sweep_of("stop.iterations=3"))
    (trial,) = (path for path in (folder / "tune").iterdir() if path.is_dir())
    (trial / "checkpoint_000002" / checkpoint.POLICY).unlink()
    (trial / ".checkpoint_000003").mkdir()
    (trial / ".checkpoint_000003" / checkpoint.POLICY).write_text("half")
    assert run(tiny(f"resume={folder}"), ["test"]) == 0
    assert iterations(folder) == [1, 2, 3]
    assert [c for c in checkpoints(folder) if not c.startswith(".")] == [f"checkpoint_00000{i}" for i in range(3)]
