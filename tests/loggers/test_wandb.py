"""W&B: every row of every trial is in the offline files, as W&B's own reader tells, and no account is needed."""

import json
import math
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import numpy as np
import pytest
import wandb
from wandb.util import get_core_path

from marl_tune.loggers.lineage_csv import LineageCsv
from marl_tune.loggers.progress_csv import ProgressCsv
from marl_tune.loggers.wandb import WandbCallback, has_credentials, wandb_mode
from marl_tune.results.manifest import begin_manifest
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import read_json


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder.create(tmp_path, "sweep")
    begin_manifest(folder, {"sweep": 0}, ["python", "-m", "marl_tune"])
    return folder


def trial_of(trial_id, **config):
    return SimpleNamespace(trial_id=trial_id, config=config, last_result={}, status="RUNNING", get_error=lambda: None)


def resolve(values):
    return {"name": "sweep", "algorithm": {"lr": values.get("algorithm.lr", 0.1), "gamma": 0.99}}


def callbacks_of(folder, **words):
    wandb_callback = WandbCallback(folder, resolve, ["algorithm.lr"], "marl_tune", tags=["ant_colony"], **words)
    return [ProgressCsv(folder), LineageCsv(folder), wandb_callback]


def report(callbacks, trial, iteration, **metrics):
    result = {"training_iteration": iteration, "agent_steps": 20 * iteration, **metrics}
    for callback in callbacks:
        callback.on_trial_result(iteration=0, trials=[trial], trial=trial, result=result)


def tell(callbacks, event, trial=None, **words):
    words = {"trials": [], **words} if trial is None else {"iteration": 0, "trials": [], "trial": trial, **words}
    for callback in callbacks:
        getattr(callback, event)(**words)


def records(run_folder):
    """The records of a `.wandb` file, by W&B's own reader (what `wandb leet inspect` runs)."""
    (log,) = run_folder.glob("*.wandb")
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file", log, run_folder.parent]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def history(run_folder):
    return [record["history"]["item"] for record in records(run_folder) if record["type"] == "history"]


def runs_of(folder, trial_id):
    run_id = read_json(folder.wandb_runs)[trial_id]
    return sorted(folder.wandb_runs.parent.glob(f"offline-run-*-{run_id}"))


def config_of(run_folder):
    config = {}
    for record in records(run_folder):
        config |= record.get("run", {}).get("config", {}).get("update", {})
        config |= record.get("config", {}).get("update", {})
    return config


def test_every_row_is_in_the_file_exploits_included(folder):
    callbacks = callbacks_of(folder)
    trials = [trial_of(f"x_{n:05d}", **{"algorithm.lr": 0.1 * (n + 1)}) for n in range(3)]
    for trial in trials:
        tell(callbacks, "on_trial_start", trial)
    for iteration in range(1, 41):
        for trial in trials:
            report(callbacks, trial, iteration, return_mean_agent=math.nan if iteration == 1 else 0.5 * iteration)
    for callback in callbacks:
        callback.on_exploit("x_00001", "x_00000", 40, {"algorithm.lr": 0.2}, {"algorithm.lr": 0.12})
    for iteration in range(31, 61):  # goes back to the donor's iteration
        report(callbacks, trials[1], iteration, return_mean_agent=0.5 * iteration, evaluation={"iqm": iteration})
    tell(callbacks, "on_trial_complete", trials[0])
    tell(callbacks, "on_trial_error", trials[2])
    tell(callbacks, "on_experiment_end")

    rows = history(*runs_of(folder, "x_00001"))
    assert [row["row"] for row in rows] == list(range(1, 71))
    assert [row["_step"] for row in rows] == list(range(1, 71))
    assert [row["iteration"] for row in rows] == [*range(1, 41), *range(31, 61)]
    assert "return_mean_agent" not in rows[0]
    assert rows[-1]["return_mean_agent"] == 30.0
    assert rows[-1]["evaluation/iqm"] == 60
    assert [row["row"] for row in history(*runs_of(folder, "x_00000"))] == list(range(1, 41))
    codes = {trial.trial_id: records(*runs_of(folder, trial.trial_id))[-1]["exit"] for trial in trials}
    assert [codes[trial.trial_id].get("exit_code", 0) for trial in trials] == [0, 1, 1]


def test_the_config_holds_settings_and_lineage(folder):
    callbacks, trial = callbacks_of(folder), trial_of("x_00001", **{"algorithm.lr": 0.2})
    tell(callbacks, "on_trial_start", trial)
    report(callbacks, trial, 1)
    run = callbacks[2].runs["x_00001"]
    assert (run.group, run.name, run.tags) == (folder.title, "x_00001", ("ant_colony",))
    for step, lr in ((1, 0.12), (5, 0.3)):
        for callback in callbacks:
            callback.on_exploit("x_00001", "x_00000", step, {"algorithm.lr": 0.2}, {"algorithm.lr": lr})
    tell(callbacks, "on_experiment_end")
    config = config_of(*runs_of(folder, "x_00001"))
    assert config["algorithm"] == {"lr": 0.3, "gamma": 0.99}
    assert config["overrides"] == {"algorithm.lr": 0.3}
    assert config["manifest"]["command"] == "python -m marl_tune"
    assert [(entry["from"], entry["iteration"]) for entry in config["lineage"]] == [("x_00000", 1), ("x_00000", 5)]
    defined = [record["metric"] for record in records(*runs_of(folder, "x_00001")) if record["type"] == "metric"]
    assert any(metric.get("glob_name") == "*" and metric.get("step_metric") == "row" for metric in defined)


def test_a_resumed_sweep_goes_on_with_the_same_run(folder):
    callbacks, trial = callbacks_of(folder), trial_of("x_00000", **{"algorithm.lr": 0.2})
    for iteration in (1, 2):
        report(callbacks, trial, iteration)
    for callback in callbacks:
        callback.on_exploit("x_00000", "x_00001", 2, {"algorithm.lr": 0.2}, {"algorithm.lr": 0.5})
    states = cloudpickle.dumps([callback.get_state() for callback in callbacks])
    report(callbacks, trial, 3)
    tell(callbacks, "on_experiment_end")
    time.sleep(1.1)  # W&B names its folders by the second
    callbacks = cloudpickle.loads(cloudpickle.dumps(callbacks_of(folder)))
    for callback, state in zip(callbacks, cloudpickle.loads(states), strict=True):
        if state:
            callback.set_state(state)
    trial.config["algorithm.lr"] = 0.5
    for iteration in (3, 4):
        report(callbacks, trial, iteration)
    tell(callbacks, "on_trial_complete", trial)
    first, second = runs_of(folder, "x_00000")
    assert [row["row"] for row in history(first)] == [1, 2, 3]
    assert [row["row"] for row in history(second)] == [4, 5]
    assert next(record["run"]["resume"] for record in records(second) if record["type"] == "run")
    assert [entry["from"] for entry in config_of(second)["lineage"]] == ["x_00001"]


def test_auto_is_offline_without_a_key_and_online_with_one(monkeypatch, tmp_path):
    assert wandb_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert wandb_mode("auto") == "online"
    assert wandb_mode("offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert wandb_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") == "disabled"


def test_offline_runs_report_nothing_to_wandb(folder, monkeypatch):
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "")
    monkeypatch.delenv("WANDB_ERROR_REPORTING")
    callbacks_of(folder)
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"  # its default is true, and then wandb-core calls home


def test_a_key_of_wandb_login_is_found(tmp_path):
    assert not has_credentials()
    host = wandb.Settings().base_url.split("//")[1]
    (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {'a' * 40}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert has_credentials()


def test_a_server_that_cannot_be_reached_costs_a_warning_and_no_row(folder, monkeypatch):
    real = wandb.init

    def init(**words):
        if words["mode"] == "online":
            raise wandb.errors.CommError("no route to host")
        return real(**words)

    monkeypatch.setattr(wandb, "init", init)
    callbacks, trial = callbacks_of(folder, mode="online"), trial_of("x_00000")
    with pytest.warns(UserWarning, match="written offline"):
        report(callbacks, trial, 1)
    report(callbacks, trial, 2)
    tell(callbacks, "on_experiment_end")
    assert [row["row"] for row in history(*runs_of(folder, "x_00000"))] == [1, 2]


def test_trouble_with_wandb_does_not_stop_a_trial(folder, monkeypatch):
    callbacks, trial = callbacks_of(folder), trial_of("x_00000")
    report(callbacks, trial, 1)
    run = callbacks[2].runs["x_00000"]
    monkeypatch.setattr(run, "log", lambda *_, **__: (_ for _ in ()).throw(BrokenPipeError("gone")))
    with pytest.warns(UserWarning, match="stopped logging trial x_00000"):
        report(callbacks, trial, 2)
    report(callbacks, trial, 3)
    tell(callbacks, "on_trial_complete", trial)
    run.finish()


def test_a_row_costs_little_and_starts_no_process(folder):
    before = _children()  # Ray's, where other tests of the session need it
    callbacks = callbacks_of(folder)
    trials = [trial_of(f"x_{n:05d}") for n in range(8)]
    metrics = {f"metric_{n}": n / 7 for n in range(60)}
    for trial in trials:
        report(callbacks, trial, 1, **metrics)
    children = len(list(Path("/proc/self/task").glob("*/children"))) and _children()
    seconds = []
    for iteration in range(2, 27):
        start = time.perf_counter()
        for trial in trials:
            report(callbacks[2:], trial, iteration, row=iteration, **metrics)
        seconds.append((time.perf_counter() - start) / len(trials))
    assert np.median(seconds) < 5e-3  # about 0.3 ms on an idle machine; others that are busy slow some of them
    assert _children() == children <= before + 1  # W&B's one service for all runs
    tell(callbacks, "on_experiment_end")


def _children():
    return sum(len(path.read_text().split()) for path in Path("/proc/self/task").glob("*/children"))
