"""The run's folder: unique, atomic, and read back as it was written."""

import concurrent.futures
import json
import math
import os
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest

from marl_tune.results.formatting import format_count, format_duration, format_score, short_ids, short_keys
from marl_tune.results.manifest import begin_manifest, finish_manifest, git_state
from marl_tune.results.records import LineageRecord, TrialRecord
from marl_tune.results.run_folder import RunFolder, RunHeldError
from marl_tune.results.text_files import as_cell, from_cell, plain, read_csv, read_json, write_json, write_text

NOON = datetime(2026, 11, 21, 12, 0, 0)


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "results", "ant_colony", NOON)


def test_the_folder_is_named_by_sweep_and_time(folder, tmp_path):
    assert folder.path == tmp_path / "results" / "ant_colony" / "2026-11-21_12-00-00"
    assert folder.title == "ant_colony/2026-11-21_12-00-00"
    assert folder.path.is_dir()


def test_the_files_of_the_contract(folder):
    files = [folder.config, folder.manifest, folder.tune, folder.trials, folder.progress, folder.lineage]
    files += [folder.best_checkpoint, folder.best_config, folder.evaluation, folder.report, folder.summary]
    names = "config.yaml manifest.json tune trials.csv progress.csv lineage.csv"
    best = "best/checkpoint best/config.yaml best/evaluation.json report.html summary.json"
    assert [folder.relative(path) for path in files] == f"{names} {best}".split()
    assert folder.relative("/elsewhere/x") == "/elsewhere/x"


def test_a_run_is_held_by_one_process_at_a_time(folder):
    with folder.held():
        with pytest.raises(RunHeldError, match=f"process {os.getpid()} works on it"), RunFolder(folder.path).held():
            pass
        ask = "import sys, marl_tune.results.run_folder as f; f.RunFolder.open(sys.argv[1]).held().__enter__()"
        write_text(folder.config, "")
        other = subprocess.run([sys.executable, "-c", ask, str(folder.path)], capture_output=True, text=True)
        assert f"process {os.getpid()} works on it" in other.stderr
    for _ in range(2):  # free again afterwards
        with folder.held():
            pass


def test_runs_that_start_in_one_second_get_folders_of_their_own(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: RunFolder.create(tmp_path, "a", NOON), range(20)))
    assert len({folder.path for folder in folders}) == 20


@pytest.mark.parametrize("name", ["", "  ", "..", "a/b", "a\\b"])
def test_a_name_that_cannot_name_a_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="name must be"):
        RunFolder.create(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_open_refuses_what_is_no_run(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="not a folder"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="not a run's folder"):
        RunFolder.open(folder.path)
    write_text(folder.config, "name: a\n")
    assert RunFolder.open(folder.path).path == folder.path


def test_a_failed_write_leaves_the_old_file_and_no_rest(folder, monkeypatch):
    write_text(folder.config, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(folder.config, "new")
    assert folder.config.read_text() == "old"
    assert [path.name for path in folder.path.iterdir()] == ["config.yaml"]


def test_json_holds_no_nan_and_no_numpy(folder):
    write_json(folder.evaluation, {"a": np.float32(0.5), "b": [math.nan, math.inf], "c": np.arange(2), 3: folder.path})
    text = folder.evaluation.read_text()
    assert json.loads(text) == {"a": 0.5, "b": [None, None], "c": [0, 1], "3": str(folder.path)}
    assert plain((True, 1, None)) == [True, 1, None]


SETTINGS = [3e-4, 0, 1, False, None, [64, 64], "relu", "1", "null", "", "a,b", 'say "x"', {"a": 1}, "[1", -1.5e-7]


@pytest.mark.parametrize("value", SETTINGS)
def test_a_setting_survives_its_cell(value):
    again = from_cell(as_cell(value))
    assert again == value
    assert type(again) is type(value)


def test_trials_survive_their_table(folder):
    trials = [
        TrialRecord(
            "x_0", "TERMINATED", {"seed": 0, "module": "mlp", "module.hidden_dims": [8, 8]}, 0.0, 3, 1.5, 30, 60
        ),
        TrialRecord("x_1", "ERROR", {"seed": 1}, None, error='ValueError: "a", b\nc', checkpoint="tune/x_1/c"),
    ]
    folder.write_trials(trials)
    assert folder.read_trials() == trials
    assert read_csv(folder.trials)[0]["score"] == "0.0"
    assert folder.trials.read_text().splitlines()[0].startswith("trial,status,seed,module,module.hidden_dims,score,")


def test_trials_of_no_score_have_an_empty_cell(folder):
    folder.write_trials([TrialRecord("x", "RUNNING", {}, math.nan)])
    assert folder.read_trials()[0].score is None


def test_lineage_survives_its_table(folder):
    assert folder.read_lineage() == []
    records = [LineageRecord(4, "a", "b", {"algorithm.lr": 1e-4}, {"algorithm.lr": 1.2e-4, "module.x": [1]})]
    folder.write_lineage(records)
    assert folder.read_lineage() == records
    assert folder.lineage.read_text().splitlines()[0] == "step,from,to,old,new"


def test_a_line_that_was_cut_off_is_left_out(folder):
    folder.progress.write_text("trial,row\na,1\na,2")
    assert read_csv(folder.progress) == [{"trial": "a", "row": "1"}]
    folder.progress.write_text("")
    assert read_csv(folder.progress) == []


def test_the_summary_has_the_keys_of_the_contract(folder):
    trials = [
        TrialRecord("a", "TERMINATED", {"seed": 0}, np.float64(1.5), 2, 1.0, 10, 20, "c"),
        TrialRecord("b", "ERROR", {}),
    ]
    best = {"trial": "a", "overrides": {"seed": 0}, "checkpoint": "best/checkpoint", "evaluation": {"iqm": math.nan}}
    folder.write_summary(
        status="failed", name="n", seed=0, metric="m", mode="max", wall_time_s=2.5, trials=trials, best=best
    )
    summary = read_json(folder.summary)
    assert list(summary) == (
        ["status", "name", "seed", "metric", "mode", "wall_time_s", "env_steps", "agent_steps", "trials", "best"]
    )
    assert summary["trials"][0] == {
        "id": "a",
        "status": "TERMINATED",
        "overrides": {"seed": 0},
        "score": 1.5,
        "iterations": 2,
        "error": None,
    }
    assert (summary["env_steps"], summary["agent_steps"]) == (10, 20)
    assert summary["best"] == {**best, "evaluation": {"iqm": None}}


def git(path, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *who, *words], cwd=path, check=True, capture_output=True)


def test_git_state_tells_of_changes(tmp_path):
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "-b", "main")
    assert git_state(tmp_path) == {"commit": None, "branch": "main", "dirty": False}
    (tmp_path / "a.py").write_text("1")
    assert git_state(tmp_path)["dirty"] is True
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "x")
    state = git_state(tmp_path)
    assert state["dirty"] is False
    assert len(state["commit"]) == 40
    (tmp_path / "a.py").write_text("2")
    assert git_state(tmp_path)["dirty"] is True


def test_the_manifest_keeps_every_session(folder):
    begin_manifest(folder, {"sweep": 0}, ["python", "-m", "marl_tune", "name=a b"])
    assert read_json(folder.manifest)["sessions"][0]["status"] == "running"
    finish_manifest(folder, "interrupted")
    begin_manifest(folder, {"sweep": 0}, ["python", "-m", "marl_tune", "resume=x"])
    finish_manifest(folder, "finished")
    manifest = read_json(folder.manifest)
    assert [session["status"] for session in manifest["sessions"]] == ["interrupted", "finished"]
    assert manifest["sessions"][0]["command"] == "python -m marl_tune 'name=a b'"
    assert manifest["seeds"] == {"sweep": 0}
    assert manifest["packages"]["ray"] == "2.60.0"
    assert manifest["cpu"]["cores"] >= 1
    started, finished = (datetime.fromisoformat(manifest[key]) for key in ("started", "finished"))
    assert started <= finished


def test_words_for_people():
    assert [format_count(n) for n in (0, 9999, 41_234, 400_000, 2_220_000)] == ["0", "9999", "41.2k", "400k", "2.22M"]
    assert format_count(math.nan) == "-"
    assert [format_duration(s) for s in (0, 65, 7384, 273_900)] == ["0:00", "1:05", "2:03:04", "3d 04:05"]
    assert format_duration(None) == "-"
    assert [format_score(s) for s in (2.16, 42.4, 12345.6, None, -0.5)] == ["2.160", "42.40", "12,346", "-", "-0.5000"]
    assert short_keys(["algorithm.lr", "env.x.n", "module.x.n"]) == {
        "algorithm.lr": "lr",
        "env.x.n": "env.x.n",
        "module.x.n": "module.x.n",
    }
    assert short_ids(["a_00", "a_01"]) == {"a_00": "00", "a_01": "01"}
    assert short_ids(["a_00", "b_00"]) == {"a_00": "a_00", "b_00": "b_00"}
