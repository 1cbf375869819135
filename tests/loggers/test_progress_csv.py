"""progress.csv, lineage.csv and TensorBoard tell of each iteration once, through exploits, crashes and resumes."""

import csv
import math
import time
from types import SimpleNamespace

import cloudpickle
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from marl_tune.loggers.lineage_csv import LineageCsv
from marl_tune.loggers.progress_csv import FIRST_COLUMNS, ProgressCsv
from marl_tune.loggers.tensorboard import TensorboardCallback
from marl_tune.results.callback import error_line, searched
from marl_tune.results.metrics import flat_metrics
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import read_csv


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, "sweep")


def trial_of(trial_id="x_00000", **config):
    return SimpleNamespace(trial_id=trial_id, config=config, last_result={}, status="RUNNING", get_error=lambda: None)


def report(callbacks, trial, iteration, **metrics):
    """What Tune does with a result."""
    result = {"training_iteration": iteration, "env_steps": 10 * iteration, "agent_steps": 20 * iteration, **metrics}
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        callback.on_trial_result(iteration=0, trials=[trial], trial=trial, result=result)
    trial.last_result = result
    return result


def rows(folder, *columns):
    return [tuple(row[column] for column in columns) for row in read_csv(folder.progress)]


def iterations(folder, trial_id="x_00000"):
    return [int(row["iteration"]) for row in read_csv(folder.progress) if row["trial"] == trial_id]


def test_names_are_joined_and_bookkeeping_is_left_out():
    result = {
        "training_iteration": 3,
        "pid": 12,
        "trial_id": "x",
        "config": {"algorithm.lr": 1},
        "done": True,
        "env_runners": {"episode_return_mean": np.float32(0.5), "agents": {"n": np.int64(2)}},
        "learners": {"ants": {"entropy": torch.tensor(1.5)}},
        "return_mean_agent": math.nan,
        "words": "no number",
        "array": np.zeros(3),
        "flag": False,
    }
    metrics = flat_metrics(result)
    assert math.isnan(metrics.pop("return_mean_agent"))
    assert metrics == {
        "iteration": 3,
        "env_runners/episode_return_mean": 0.5,
        "env_runners/agents/n": 2,
        "learners/ants/entropy": 1.5,
        "flag": 0,
    }


def test_searched_values_and_error_lines():
    trial = trial_of(**{"algorithm.lr": 0, "other": 1})
    assert searched(trial, ["algorithm.lr", "env.n_agents"]) == {"algorithm.lr": 0}
    assert error_line(trial) is None
    trial.get_error = lambda: "Failure # 1\nTraceback\n  File\nValueError: bad\n\n"
    assert error_line(trial) == "ValueError: bad"


def test_a_row_a_result_and_a_column_a_metric(folder):
    progress = ProgressCsv(folder)
    one, two = trial_of("x_00000"), trial_of("x_00001")
    report(progress, one, 1, return_mean_agent=math.nan)
    report(progress, two, 1, return_mean_agent=0.5)
    report(progress, one, 2, return_mean_agent=1e-300, evaluation={"return_mean_agent": 2})
    report(progress, two, 2)
    assert folder.progress.read_text().splitlines()[0].split(",") == (
        [*FIRST_COLUMNS, "return_mean_agent", "evaluation/return_mean_agent"]
    )
    assert rows(folder, "trial", "row", "iteration", "agent_steps", "return_mean_agent") == [
        ("x_00000", "1", "1", "20", "nan"),
        ("x_00001", "1", "1", "20", "0.5"),
        ("x_00000", "2", "2", "40", "1e-300"),
        ("x_00001", "2", "2", "40", ""),
    ]
    assert rows(folder, "evaluation/return_mean_agent") == [("",), ("",), ("2",), ("",)]


def test_the_result_carries_its_number(folder):
    progress, trial = ProgressCsv(folder), trial_of()
    assert [report(progress, trial, iteration)["row"] for iteration in (1, 2, 3)] == [1, 2, 3]


def test_the_file_is_appended_to_and_not_written_anew(folder):
    progress, trial = ProgressCsv(folder), trial_of()
    report(progress, trial, 1, a=1)
    inode = folder.progress.stat().st_ino
    for iteration in range(2, 50):
        report(progress, trial, iteration, a=1)
    assert folder.progress.stat().st_ino == inode
    report(progress, trial, 50, b=1)
    assert folder.progress.stat().st_ino != inode
    assert iterations(folder) == list(range(1, 51))


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("donor_at", [2, 4, 5, 9])
def test_rows_of_before_an_exploit_are_kept(folder, announced, donor_at):
    """The scheduler decides before the result is announced, or, for a paused trial, after."""
    progress, trial = ProgressCsv(folder), trial_of()
    for iteration in (1, 2, 3, 4):
        report(progress, trial, iteration)
    if announced:
        report(progress, trial, 5)
    progress.on_exploit(trial.trial_id, "x_00009", 5, {}, {})
    if not announced:
        report(progress, trial, 5)
    for iteration in (donor_at + 1, donor_at + 2):
        report(progress, trial, iteration)
    assert iterations(folder) == [1, 2, 3, 4, 5, donor_at + 1, donor_at + 2]
    assert rows(folder, "row") == [(str(n),) for n in range(1, 8)]


def test_an_exploit_told_with_the_donors_iteration_loses_nothing_either(folder):
    progress, trial = ProgressCsv(folder), trial_of()
    for iteration in (1, 2, 3):
        report(progress, trial, iteration)
    progress.on_exploit(trial.trial_id, "x_00009", 7, {}, {})
    report(progress, trial, 2)
    report(progress, trial, 3)
    assert iterations(folder) == [1, 2, 3, 2, 3]


def test_a_trial_restored_after_a_crash_repeats_no_iteration(folder):
    progress, trial, other = ProgressCsv(folder), trial_of(), trial_of("x_00001")
    for iteration in range(1, 8):
        report(progress, trial, iteration, score=iteration)
        report(progress, other, iteration)
    for iteration in range(5, 9):  # its checkpoint was of iteration 4
        report(progress, trial, iteration, score=10 * iteration)
    assert iterations(folder) == list(range(1, 9))
    assert iterations(folder, "x_00001") == list(range(1, 8))
    scores = [row["score"] for row in read_csv(folder.progress) if row["trial"] == trial.trial_id]
    assert scores == ["1", "2", "3", "4", "50", "60", "70", "80"]
    numbers = [int(row["row"]) for row in read_csv(folder.progress) if row["trial"] == trial.trial_id]
    assert numbers == [1, 2, 3, 4, 8, 9, 10, 11]  # never used twice


def test_a_crash_after_an_exploit_goes_back_to_the_copy_only(folder):
    progress, trial = ProgressCsv(folder), trial_of()
    for iteration in range(1, 6):
        report(progress, trial, iteration)
    progress.on_exploit(trial.trial_id, "x_00009", 5, {}, {})
    for iteration in (4, 5, 6, 4, 5):  # restored from the donor's checkpoint of iteration 3
        report(progress, trial, iteration)
    assert iterations(folder) == [1, 2, 3, 4, 5, 4, 5]


def resumed(callback, state, folder):
    """A callback of the same class, as a resumed sweep makes it in a new process."""
    fresh = type(callback)(folder)
    fresh.set_state(cloudpickle.loads(state))
    return fresh


def test_a_resumed_sweep_drops_what_its_saved_state_does_not_know(folder):
    progress, first, second, late = ProgressCsv(folder), trial_of(), trial_of("x_00001"), trial_of("x_00002")
    for iteration in (1, 2, 3):
        report(progress, first, iteration)
        report(progress, second, iteration)
    state = cloudpickle.dumps(progress.get_state())
    report(progress, first, 4)
    report(progress, second, 4)
    progress.on_exploit(second.trial_id, "x_00000", 4, {}, {})
    report(progress, second, 9)
    report(progress, late, 1)
    with folder.progress.open("a") as file:
        file.write("x_00000,5,5,50")  # killed in the middle of a line
    progress = resumed(progress, state, folder)
    report(progress, second, 3)  # its checkpoint is older than the state
    assert iterations(folder) == [1, 2, 3, 4]  # still to be repeated
    report(progress, first, 4)
    report(progress, first, 5)
    report(progress, second, 4)
    progress.on_experiment_end(trials=[])
    assert iterations(folder) == [1, 2, 3, 4, 5]
    assert iterations(folder, "x_00001") == [1, 2, 3, 4]
    assert iterations(folder, "x_00002") == []  # that trial was forgotten with the state
    numbers = [int(row["row"]) for row in read_csv(folder.progress) if row["trial"] == "x_00001"]
    assert numbers == [1, 2, 6, 7]


def test_a_sweep_resumed_without_a_state_starts_over(folder):
    progress, trial = ProgressCsv(folder), trial_of()
    report(progress, trial, 1)
    report(progress, trial, 2)
    progress = ProgressCsv(folder)
    assert report(progress, trial, 1)["row"] == 3
    assert iterations(folder) == [1]


def test_an_end_without_results_leaves_a_header(folder):
    ProgressCsv(folder).on_experiment_end(trials=[])
    assert next(csv.reader(folder.progress.open())) == list(FIRST_COLUMNS)


def test_a_row_costs_little(folder):
    progress, trial = ProgressCsv(folder), trial_of()
    metrics = {f"metric_{n}": n / 7 for n in range(60)}
    report(progress, trial, 1, **metrics)
    start = time.perf_counter()
    for iteration in range(2, 202):
        report(progress, trial, iteration, **metrics)
    assert (time.perf_counter() - start) / 200 < 2e-3  # about 0.1 ms on an idle machine


def test_lineage_is_written_and_undone_with_the_state(folder):
    lineage = LineageCsv(folder)
    lineage.on_exploit("b", "a", 4, {"algorithm.lr": 1e-4}, {"algorithm.lr": 1.2e-4})
    state = cloudpickle.dumps(lineage.get_state())
    lineage.on_exploit("c", "a", 5, {}, {})
    assert [record.to for record in folder.read_lineage()] == ["b", "c"]
    lineage = resumed(lineage, state, folder)
    assert [record.to for record in folder.read_lineage()] == ["b"]
    lineage.on_exploit("d", "b", 6, {}, {})
    assert [(r.step, r.source, r.to) for r in folder.read_lineage()] == [(4, "a", "b"), (6, "b", "d")]


def test_tensorboard_has_the_names_and_steps_of_progress_csv(folder):
    callbacks = [ProgressCsv(folder), TensorboardCallback(folder, ["algorithm.lr", "module.hidden_dims"], "score")]
    trial = trial_of(**{"algorithm.lr": 1e-3, "module.hidden_dims": [8, 8]})
    for iteration in (1, 2, 3):
        report(
            callbacks, trial, iteration, score=math.nan if iteration == 1 else iteration, learners={"a": {"kl": 0.5}}
        )
    for callback in callbacks:
        callback.on_exploit(trial.trial_id, "x_00009", 3, {"algorithm.lr": 1e-3}, {"algorithm.lr": 2e-3})
    report(callbacks, trial, 2, score=7, learners={"a": {"kl": 0.5}})
    fresh = cloudpickle.loads(cloudpickle.dumps(callbacks[1]))  # as a resumed sweep does
    callbacks[1].on_experiment_end(trials=[trial])
    callbacks[1] = fresh
    report(callbacks, trial, 3, score=8, learners={"a": {"kl": 0.5}})
    callbacks[1].on_trial_complete(iteration=0, trials=[trial], trial=trial)
    events = EventAccumulator(str(folder.tensorboard / trial.trial_id))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("score")][:4] == [(2, 2), (3, 3), (4, 7), (5, 8)]
    assert [event.step for event in events.Scalars("learners/a/kl")] == [1, 2, 3, 4, 5]
    header = set(next(csv.reader(folder.progress.open()))) - {"trial", "row"}
    assert set(events.Tags()["scalars"]) == header
    assert "exploit/text_summary" in events.Tags()["tensors"]
    assert "_hparams_/session_start_info" in events.summary_metadata
