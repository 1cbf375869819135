"""breakthroughs.csv: a row an event, and what is forgotten when a trial goes back."""

import dataclasses
import math
import pickle

import pytest

from marl_tune.loggers.breakthroughs_csv import BreakthroughNews, BreakthroughsCsv
from marl_tune.loggers.progress_csv import ProgressCsv
from marl_tune.results.metrics import EVENTS, TEAM
from marl_tune.results.records import BreakthroughRecord
from marl_tune.results.run_folder import RunFolder
from marl_tune.trial.breakthroughs import Breakthrough


@pytest.fixture
def told_of(tmp_path):
    """A run's folder, and the callback that writes its breakthroughs.csv after the one that numbers the rows."""
    folder = RunFolder.create(tmp_path, "sweep")
    return folder, [ProgressCsv(folder), BreakthroughsCsv(folder)]


def report(callbacks, iteration, *events, trial_id="x_00000"):
    trial = type("Trial", (), {"trial_id": trial_id, "config": {}, "last_result": {}})()
    result = {"training_iteration": iteration, EVENTS: [dataclasses.asdict(event) for event in events]}
    for callback in (*callbacks, BreakthroughNews(callbacks)):
        callback.on_trial_result(iteration=0, trials=[trial], trial=trial, result=result)
    for callback in callbacks:
        callback.on_step_end(iteration=0, trials=[trial])


RISE = Breakthrough(TEAM, 18.9, 12.3, 1.1)


def test_without_one_there_is_no_file(told_of):
    folder, callbacks = told_of
    report(callbacks, 1)
    for callback in callbacks:
        callback.on_experiment_end(trials=[])
    assert not folder.breakthroughs.exists()
    assert folder.read_breakthroughs() == []


def test_a_row_an_event(told_of):
    folder, callbacks = told_of
    report(callbacks, 4, RISE, Breakthrough("ant_3", 1.0, 0.0, 0.0))
    record = BreakthroughRecord("x_00000", 4, TEAM, 18.9, 12.3, (18.9 - 12.3) / 1.1)
    assert folder.read_breakthroughs() == [record, BreakthroughRecord("x_00000", 4, "ant_3", 1.0, 0.0, math.inf)]


def test_lost_time_is_forgotten_and_a_copys_jump_is_not(told_of):
    folder, callbacks = told_of
    for iteration in (1, 2, 3):
        report(callbacks, iteration, RISE)
    report(callbacks, 2)  # restored from the checkpoint of iteration 1
    report(callbacks, 3, RISE)
    assert [record.iteration for record in folder.read_breakthroughs()] == [1, 3]
    callbacks[0].on_exploit("x_00000", "x_00009", 3, {}, {})
    report(callbacks, 2, RISE)
    assert [record.iteration for record in folder.read_breakthroughs()] == [1, 3, 2]


def test_a_resumed_sweep_goes_back_to_what_was_saved(told_of):
    folder, callbacks = told_of
    report(callbacks, 1, RISE)
    states = pickle.loads(pickle.dumps([callback.get_state() for callback in callbacks]))
    report(callbacks, 2, RISE)
    again = [ProgressCsv(folder), BreakthroughsCsv(folder)]
    for callback, state in zip(again, states, strict=True):
        callback.set_state(state)
    report(again, 2)
    assert [record.iteration for record in folder.read_breakthroughs()] == [1]
