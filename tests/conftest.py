"""What all tests share: tiny sweeps composed as the command line composes them, and one Ray for the whole session."""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest

from marl_tune.config.compose import compose
from marl_tune.config.schema.sweep import SweepConfig

# Files whose tests run whole sweeps. Processes begin with them, so that none is left with a long one at the end.
LONG = (
    "test_run.py",
    "test_in_process_driver.py",
    "test_trial.py",
    "test_wandb.py",
    "test_connect.py",
    "test_on_policy_learner.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, all else as it was."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture
def tiny(tmp_path):
    """Composes the debug experiment with further words: `tiny("module=gru", "seed=3")`; results go to tmp_path."""

    def make(*words: str) -> SweepConfig:
        base = ["+experiment=debug", "logger.progress=off", f"results_dir={tmp_path / 'results'}"]
        return compose([*base, *words])[0]

    return make


@pytest.fixture(scope="session")
def ray_session():
    """Ray, started once for all tests that need it."""
    import ray
    import torch

    from marl_tune.cluster.connect import connect

    torch.set_num_threads(1)
    connect(compose(["+experiment=debug", "cluster.num_cpus=2"])[0].cluster, processes=2)
    yield
    ray.shutdown()


@pytest.fixture
def trial(tiny, monkeypatch, ray_session):
    """Makes trials of the debug sweep outside Tune: `trial(overrides, *words, number=0)`; stopped after the test."""
    from ray import tune

    from marl_tune.config import convert
    from marl_tune.trial.trial import Trial

    made = []
    # Outside Tune a trial has no id; these carry their own.
    monkeypatch.setattr(Trial, "trial_id", property(lambda self: self.__dict__["own_id"]))

    def make(overrides=None, *words: str, number: int = 0) -> Trial:
        bound = tune.with_parameters(Trial, sweep=convert.to_dict(tiny(*words)))
        one = bound.__new__(bound)
        one.__dict__["own_id"] = f"test_{number:05d}"
        one.__init__(config=dict(overrides or {}))
        made.append(one)
        return one

    yield make
    for one in made:
        one.stop()
