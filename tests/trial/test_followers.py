"""What follows a trial: when it is called, what a checkpoint keeps of it, and what a new follower needs."""

import pytest

from marl_tune.results.checkpoint_files import read_training
from marl_tune.trial.follower import Follower
from marl_tune.trial.followers import FOLLOWERS
from marl_tune.trial.iteration_report import ORDER, in_order

pytestmark = pytest.mark.usefixtures("ray_session")
STAGES = "env.curriculum={stages:[{n_agents:2}],threshold:-100,episodes:5}"  # left after the first iteration


class Recorder(Follower):
    """Notes its calls; its state is the number of iterations."""

    def __init__(self, trial):
        self.calls, self.iterations = [], 0

    def begin(self):
        self.calls.append("begin")

    def begin_world(self):
        self.calls.append("begin_world")

    def before_iteration(self, agent_steps):
        self.calls.append(("before", agent_steps))

    def after_iteration(self, iteration):
        self.calls.append(("after", iteration.number, iteration.agent_steps))
        self.iterations += 1
        return {"recorder": {"iterations": self.iterations}}

    def get_state(self):
        return {"iterations": self.iterations}

    def set_state(self, state):
        self.calls.append(("set_state", state))
        self.iterations = 0 if state is None else state["iterations"]


@pytest.fixture
def recorded(monkeypatch):
    """One class and one line."""
    monkeypatch.setitem(FOLLOWERS, "recorder", Recorder)


@pytest.mark.usefixtures("recorded")
def test_a_new_follower_is_called_in_turn_and_reports(trial):
    one = trial(None, STAGES)
    results = [one.train() for _ in range(2)]
    assert [result["recorder"] for result in results] == [{"iterations": 1}, {"iterations": 2}]
    steps = [result["agent_steps"] for result in results]
    first = ["begin", ("before", 0), "begin_world", ("after", 1, steps[0])]
    assert one.followers["recorder"].calls == [*first, ("before", steps[0]), ("after", 2, steps[1])]


@pytest.mark.usefixtures("recorded")
def test_its_state_is_kept_by_name_and_goes_to_a_clone(trial, tmp_path):
    donor, clone = trial(number=0), trial(number=1)
    donor.train()
    donor.train()
    clone.train()
    donor.save(str(tmp_path / "donor"))
    assert read_training(tmp_path / "donor")["counters"]["recorder"] == {"iterations": 2}
    clone.reset({"algorithm.lr": 3e-3})
    clone.restore(str(tmp_path / "donor"))
    assert clone.followers["recorder"].calls == [("set_state", {"iterations": 2})], "in place: nothing begins"
    assert clone.train()["recorder"]["iterations"] == 3


def test_a_checkpoint_without_its_state_can_be_loaded(trial, tmp_path, monkeypatch):
    before = trial(number=0)
    before.train()
    before.save(str(tmp_path / "before"))
    monkeypatch.setitem(FOLLOWERS, "recorder", Recorder)
    one = trial(number=1)
    one.restore(str(tmp_path / "before"))
    assert one.followers["recorder"].calls == ["begin", ("set_state", None)]


def test_only_what_the_settings_ask_for_follows(trial, tmp_path):
    bare = trial(None, "breakthroughs=null")
    bare.train()
    assert bare.followers == {}
    words = ("algorithm.lr_end_factor=0.5", "evaluation.interval=1", STAGES)
    full = trial(None, *words)
    full.train()
    assert list(full.followers) == ["annealing", "evaluation", "breakthroughs", "curriculum"]
    full.save(str(tmp_path / "full"))
    counters = read_training(tmp_path / "full")["counters"]
    assert list(counters) == ["trial", "env_steps", "agent_steps", "breakthroughs", "curriculum"]


def test_keys_of_a_result_have_one_order():
    report = {"new": 1, "curriculum": 2, "env_steps": 3}
    assert list(in_order(report)) == ["env_steps", "curriculum", "new"]
    assert len(set(ORDER)) == len(ORDER)
