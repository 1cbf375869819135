"""Processes of trials that pause at once: Tune keeps one of them, ours as many as trials wait."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from ray.tune import PlacementGroupFactory
from ray.tune import tune as tune_module
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache

from marl_tune.cluster.tune_controller import KeepingController, keeping_processes

SLOT = PlacementGroupFactory([{"CPU": 1}])


class FakeTrial:
    placement_group_factory = SLOT

    def __init__(self, status):
        self.status = status

    def set_ray_actor(self, actor):
        assert actor is None


def between_two_results(kind, waiting, chosen=0, is_finished=True):
    """A controller of two trials that are about to pause, while others wait, of which some are chosen to run."""
    controller = object.__new__(kind)
    running = [FakeTrial(Trial.RUNNING) for _ in range(2)]
    others = [FakeTrial(Trial.PAUSED) for _ in range(waiting)]
    actors = [f"actor {i}" for i in range(2)]
    controller._reuse_actors = True
    controller._search_alg = SimpleNamespace(is_finished=lambda: is_finished)
    controller._actor_cache = _ObjectCache(may_keep_one=True)
    controller._live_trials = {*running, *others}
    controller._staged_trials = set(others[:chosen])
    for _ in range(chosen):
        controller._actor_cache.increase_max(SLOT)
    controller._trial_to_actor = dict(zip(running, actors, strict=True))
    controller._actor_to_trial = dict(zip(actors, running, strict=True))
    controller._started_actors = set(actors)
    controller._actor_manager = SimpleNamespace(is_actor_started=lambda a: True, is_actor_failed=lambda a: False)
    return controller, running


def kept(controller, running):
    for trial in running:
        if controller._maybe_cache_trial_actor(trial):
            trial.status = Trial.PAUSED
    controller._cleanup_cached_actors()
    return controller._actor_cache.num_cached_objects


def test_tune_gives_up_a_process_that_a_trial_waits_for():
    """The reason for our controller; when this fails, Tune may do without it."""
    controller, running = between_two_results(TuneController, waiting=2, chosen=1)
    assert [controller._maybe_cache_trial_actor(trial) for trial in running] == [True, False]
    controller, running = between_two_results(TuneController, waiting=2)
    assert [controller._maybe_cache_trial_actor(trial) for trial in running] == [False, False]


@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_two_trials_that_pause_at_once_leave_their_processes_to_those_that_wait(chosen):
    controller, running = between_two_results(KeepingController, waiting=2, chosen=chosen)
    assert kept(controller, running) == 2
    assert len(controller._staged_trials) == chosen, "what is chosen to run is Tune's business"
    assert controller._actor_cache.total_max_objects == chosen


def test_no_process_stays_that_no_trial_waits_for():
    controller, (first, second) = between_two_results(KeepingController, waiting=0)
    first.status = second.status = Trial.TERMINATED
    assert not controller._maybe_cache_trial_actor(first)
    assert not controller._maybe_cache_trial_actor(second)


def test_a_cached_process_goes_when_the_last_waiting_trial_does():
    controller, (first, _) = between_two_results(KeepingController, waiting=1)
    removed = []
    actor = Mock()
    controller._trial_to_actor[first] = actor
    controller._actor_to_trial[actor] = first
    controller._started_actors.add(actor)
    controller._remove_actor = lambda tracked_actor: removed.append(tracked_actor)
    assert controller._maybe_cache_trial_actor(first)
    first.status = Trial.TERMINATED
    controller._cleanup_cached_actors()
    assert removed == []
    for trial in controller._live_trials:
        trial.status = Trial.TERMINATED
    controller._cleanup_cached_actors()
    assert removed == [actor]


def test_tune_makes_our_controller_while_it_is_asked_to():
    with keeping_processes():
        assert tune_module.TuneController is KeepingController
    assert tune_module.TuneController is TuneController
