"""Each limit of `stop` alone."""

import math
import time

import pytest

from marl_tune.config.schema.sweep import PlateauConfig, StopConfig
from marl_tune.search.stopping import SweepStopper


def stopper(mode="max", **limits):
    names = ("iterations", "agent_steps", "wall_time_s", "target", "plateau")
    return SweepStopper(StopConfig(**{name: limits.get(name) for name in names}), "score", mode)


def result(iteration=1, agent_steps=0, score=math.nan):
    return {"training_iteration": iteration, "agent_steps": agent_steps, "score": score}


@pytest.mark.parametrize(
    ("limits", "mode", "before", "at"),
    [
        ({"iterations": 5}, "max", result(4), result(5)),
        ({"agent_steps": 1000}, "max", result(9, 999), result(9, 1000)),
        ({"target": 2.0}, "max", result(9, 0, 1.9), result(9, 0, 2.0)),
        ({"target": 2.0}, "min", result(9, 0, 2.1), result(9, 0, 2.0)),
        ({"target": 2.0}, "max", result(9, 0, math.nan), result(9, 0, 3.0)),
        ({"target": 0.0}, "max", result(9, 0, -0.1), result(9, 0, 0.0)),
    ],
)
def test_a_limit_is_reached_when_it_is(limits, mode, before, at):
    stop = stopper(mode, **limits)
    assert not stop("a", before)
    assert stop("a", at)
    assert not stop.stop_all()


def test_a_plateau_counts_from_the_last_improvement():
    stop = stopper(plateau=PlateauConfig(patience=3, min_delta=0.1, grace=0))
    scores = [0.0, 1.0, 1.05, 1.09, 1.2, 1.2, 1.2]
    assert [stop("a", result(i + 1, 0, s)) for i, s in enumerate(scores)] == [False] * 7
    assert stop("a", result(8, 0, 1.25))
    assert not stop("b", result(8, 0, 1.25)), "each trial has its own count"


def test_a_plateau_needs_its_grace_and_a_score():
    stop = stopper(plateau=PlateauConfig(patience=1, min_delta=0.0, grace=4))
    assert [stop("a", result(i, 0, math.nan)) for i in range(1, 4)] == [False] * 3
    assert [stop("a", result(i, 0, 1.0)) for i in range(4, 7)] == [False, True, True]


def test_a_clone_of_a_younger_trial_is_not_on_a_plateau():
    stop = stopper(plateau=PlateauConfig(patience=2, min_delta=0.0, grace=0))
    assert not stop("a", result(10, 0, 5.0))
    assert not stop("a", result(4, 0, 3.0))
    assert not stop("a", result(5, 0, 3.0))
    assert stop("a", result(6, 0, 3.0))


def test_the_time_is_the_sweeps():
    stop = stopper(wall_time_s=0.05)
    assert not stop("a", result(1000))
    assert not stop.stop_all()
    time.sleep(0.06)
    assert stop.stop_all()
