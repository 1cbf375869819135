"""Breakthroughs: found where a return rises, not in noise; once a climb; told to callbacks and logs on both paths."""

import csv
import dataclasses
import math
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from marl_tune.config.compose import compose
from marl_tune.config.convert import from_dict, to_dict
from marl_tune.config.errors import ConfigError
from marl_tune.config.schema.sweep import BreakthroughConfig
from marl_tune.results.callback import SweepCallback
from marl_tune.results.metrics import COUNT, EVENTS, FREQUENCY, TEAM, flat_metrics
from marl_tune.results.run_folder import RunFolder
from marl_tune.sweep import session
from marl_tune.sweep.run import run
from marl_tune.trial.breakthroughs import Breakthrough, BreakthroughDetector

RULES = BreakthroughConfig(window=50, deviations=5.0, min_episodes=100)
EAGER = ("breakthroughs.window=2", "breakthroughs.deviations=0.01", "breakthroughs.min_episodes=4")
RUNS, EPISODES, AGENTS = 40, 2000, 20


def events_of(returns, rules=RULES, block=37):
    """[(episodes heard of by then, event)] of (episodes, agents) returns that come in blocks."""
    detector = BreakthroughDetector(rules, [f"ant_{n}" for n in range(returns.shape[1])])
    found = []
    for start in range(0, len(returns), block):
        part = returns[start : start + block]
        found += [(start + len(part), event) for event in detector.add(part)]
    assert detector.count == len(found)
    assert detector.episodes == len(returns)
    return found


def alone(levels, seed=0, block=37):
    """The same of one return: levels plus noise of deviation 1."""
    noise = np.random.default_rng(seed).normal(size=len(levels))
    return events_of((np.asarray(levels) + noise)[:, None], block=block)


def climb(start, length, height, total):
    """0, then up to `height` within `length` episodes, then level."""
    return np.clip((np.arange(total) - start) / max(length, 1), 0, 1) * height


# -- what is one, and what is none -------------------------------------------------------------------------------------


def test_a_step_is_found_soon_and_told_with_its_levels():
    ((heard, event),) = alone(climb(500, 0, 3.0, 1500), block=1)
    assert event.who == TEAM
    assert 505 < heard < 530, "less than half a window of the new level"
    assert event.baseline == pytest.approx(0.0, abs=0.2)
    assert 0.5 < event.level < 3.0
    assert event.level - event.baseline > 5 * event.deviation
    noise = math.sqrt(1 / 50 + 1 / 450)
    assert noise < event.deviation < 2.2 * noise, "the window holds both levels"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("length", [0, 20, 100, 300, 600])
def test_a_climb_is_one_event_however_long_it_takes(length, seed):
    assert len(alone(climb(300, length, 12.0, 1800), seed)) == 1


@pytest.mark.parametrize("seed", range(5))
def test_each_of_two_climbs_is_one(seed):
    found = alone(climb(300, 200, 8.0, 2000) + climb(1200, 200, 8.0, 2000), seed)
    assert [heard // 1000 for heard, _ in found] == [0, 1]
    assert found[1][1].baseline == pytest.approx(8.0, abs=0.5), "the level reached is the new baseline"


def test_a_climb_from_the_first_episode_on_is_told_when_there_are_enough():
    ((heard, _),) = alone(climb(0, 400, 12.0, 1000), block=1)
    assert heard == RULES.min_episodes


@pytest.mark.parametrize("seed", range(5))
def test_a_fall_and_the_way_back_are_none(seed):
    assert alone(10.0 - climb(600, 0, 6.0, 2000) + climb(700, 0, 6.0, 2000), seed) == []
    assert alone(-climb(600, 100, 6.0, 2000), seed) == []


def test_what_never_changes_is_none_and_the_first_success_must_be_no_luck():
    assert events_of(np.full((500, 3), 0.1)) == []
    once = np.zeros((500, 1))
    once[300] = 1.0
    assert events_of(once) == []
    now = np.zeros((500, 1))
    now[300:] = 1.0
    ((heard, _),) = events_of(now, block=1)
    assert 310 < heard < 330
    between = np.repeat([0.0, 1.0], 50)[:, None]
    ((_, event),) = events_of(between)
    assert (event.level, event.baseline, event.deviation) == pytest.approx((1.0, 0.0, 0.0), abs=1e-6)


def test_agents_and_team_are_looked_at_apart():
    rng = np.random.default_rng(0)
    returns = rng.normal(size=(1000, 3))
    returns[400:, 1] += 5.0
    assert sorted(event.who for _, event in events_of(returns)) == ["ant_1", TEAM]
    returns[400:, 2] -= 5.0
    assert [event.who for _, event in events_of(returns)] == ["ant_1"]


NOISE = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "long tail above": lambda rng, shape: rng.exponential(size=shape),
    "long tail below": lambda rng, shape: -rng.exponential(size=shape),
    "outliers": lambda rng, shape: rng.standard_t(3, size=shape),
    "rare success": lambda rng, shape: (rng.random(shape) < 0.03).astype(float),
    "rare failure": lambda rng, shape: (rng.random(shape) < 0.97).astype(float),
    "fair coin": lambda rng, shape: (rng.random(shape) < 0.5).astype(float),
}


@pytest.mark.parametrize("name", NOISE)
def test_noise_has_an_event_in_less_than_one_run_of_twenty(name):
    """With the values of conf/config.yaml; a run is a team of 20 and its 20 agents, over 2000 episodes."""
    rules, rng = compose([])[0].breakthroughs, np.random.default_rng(7)
    alarmed = sum(bool(events_of(NOISE[name](rng, (EPISODES, AGENTS)), rules, block=200)) for _ in range(RUNS))
    assert alarmed < RUNS / 20


@pytest.mark.parametrize(("deviations", "least", "most"), [(3.0, 0.2, 0.35), (4.0, 0.002, 0.03), (5.0, 0.0, 0.002)])
def test_returns_of_noise_that_have_an_event(deviations, least, most):
    """What the docstring says, of 2000 returns over 2000 episodes."""
    returns = np.random.default_rng(1).normal(size=(EPISODES, 2000))
    found = events_of(returns, dataclasses.replace(RULES, deviations=deviations), block=250)
    assert least <= len({event.who for _, event in found}) / 2001 <= most


# -- how it is computed ------------------------------------------------------------------------------------------------


def by_the_book(returns, rules):
    """The rule as its docstring has it, episode by episode, with sums over lists."""
    found, window = [], rules.window
    start, climbing = 0, False  # first episode that counts
    for end in range(1, len(returns) + 1):
        newest = returns[end - window : end]
        if climbing:
            if np.mean(newest) <= np.mean(returns[end - 2 * window : end - window]):
                start, climbing = end - window, False
        elif end - start >= rules.min_episodes:
            before = returns[start : end - window]
            deviation = max(np.std(newest, ddof=1), np.std(before, ddof=1)) * math.sqrt(1 / window + 1 / len(before))
            if np.mean(newest) - np.mean(before) > rules.deviations * deviation:
                found.append((end, Breakthrough(TEAM, np.mean(newest), np.mean(before), deviation)))
                climbing = True
    return found


@pytest.mark.parametrize("block", [1, 7, 100, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_rule_of_the_docstring_however_the_episodes_are_cut(seed, block):
    rules = BreakthroughConfig(window=8, deviations=2.5, min_episodes=20)
    rng = np.random.default_rng(seed)
    returns = 1000 + np.cumsum(rng.normal(size=1000) * (rng.random(1000) < 0.1)) + rng.normal(size=1000)
    expected = by_the_book(returns, rules)
    assert len(expected) > 3
    found = events_of(returns[:, None], rules, block)
    assert len(found) == len(expected)
    for (heard, event), (end, wanted) in zip(found, expected, strict=True):
        assert heard - block < end <= heard
        for name in ("level", "baseline", "deviation"):
            assert getattr(event, name) == pytest.approx(getattr(wanted, name))


@pytest.mark.parametrize("cut", [30, 310, 450])
def test_its_state_goes_on_exactly(cut):
    """Before there are enough episodes, in the middle of a climb, after it."""
    returns = np.random.default_rng(3).normal(size=(1000, 4)) + climb(250, 120, 6.0, 1000)[:, None]
    agents = [f"ant_{n}" for n in range(4)]
    whole, first, second = (BreakthroughDetector(RULES, agents) for _ in range(3))
    expected = whole.add(returns)
    found = first.add(returns[:cut])
    state = pickle.loads(pickle.dumps(first.get_state()))
    second.set_state(state)
    first.add(returns[:cut])  # what was saved is a copy
    found += second.add(returns[cut:])
    assert [event.who for event in found] == [event.who for event in expected]
    assert second.metrics() == whole.metrics() == {COUNT: len(expected), FREQUENCY: len(expected)}
    assert len(expected) == 5


def test_a_state_of_other_agents_or_another_window_is_left_alone():
    state = BreakthroughDetector(RULES, ["a", "b"]).get_state() | {"count": 3}
    for rules, agents in ((RULES, ["a", "c"]), (dataclasses.replace(RULES, window=20), ["a", "b"])):
        detector = BreakthroughDetector(rules, agents)
        detector.set_state(state)
        assert detector.count == 0


def test_the_frequency_is_of_a_thousand_episodes():
    detector = BreakthroughDetector(RULES, ["a"])
    assert detector.add(np.zeros((0, 1))) == []
    assert math.isnan(detector.metrics()[FREQUENCY])
    detector.add(climb(200, 0, 5.0, 500)[:, None])
    assert detector.metrics() == {COUNT: 1, FREQUENCY: 2.0}


def test_an_iteration_of_200_agents_and_100_episodes_costs_less_than_2_ms():
    detector = BreakthroughDetector(RULES, [f"ant_{n}" for n in range(200)])
    returns = np.random.default_rng(0).normal(size=(100, 200))
    np.empty(2_000_000)  # allocated and freed: as in a process that trains, memory is then kept for the next arrays
    times = []
    for _ in range(200):
        began = time.perf_counter()
        detector.add(returns)
        times.append(time.perf_counter() - began)
    assert min(times) < 2e-3  # about 1 ms


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((1, 5.0, 100), "breakthroughs.window must be at least 2, got 1"),
        ((50, 0.0, 100), "breakthroughs.deviations must be above 0, got 0.0"),
        ((50, math.nan, 100), "breakthroughs.deviations must be above 0, got nan"),
        ((50, 5.0, 99), "breakthroughs.min_episodes must be at least twice breakthroughs.window"),
    ],
)
def test_wrong_settings(values, message):
    with pytest.raises(ConfigError, match=message):
        BreakthroughConfig(*values)


def test_they_can_be_off_and_are_in_a_sweep_that_was_saved_without_them(tiny):
    assert tiny("breakthroughs=null").breakthroughs is None
    saved = to_dict(tiny())
    assert from_dict(saved).breakthroughs == RULES
    del saved["breakthroughs"]
    assert from_dict(saved).breakthroughs is None


# -- in a trial --------------------------------------------------------------------------------------------------------


def trained(one, iterations):
    return [one.train() for _ in range(iterations)]


def told(results):
    return [event for result in results for event in result.get(EVENTS, [])]


class TestInATrial:
    def test_a_result_counts_them_and_carries_the_new_ones(self, trial):
        results = trained(trial(None, *EAGER), 6)
        events = told(results)
        assert events
        assert set(events[0]) == {"who", "level", "baseline", "deviation"}
        assert {event["who"] for event in events} <= {TEAM, "ant_0", "ant_1", "ant_2", "ant_3"}
        last = flat_metrics(results[-1])
        assert last[COUNT] == len(events)
        assert last[FREQUENCY] == pytest.approx(1000 * len(events) / 30)  # 5 copies, an episode in each iteration
        assert not any(EVENTS in name or "finished_returns" in name for name in last)

    def test_a_paused_trial_goes_on_counting_and_a_copy_with_its_donor(self, trial, tmp_path):
        one, clone = trial(None, *EAGER, number=0), trial(None, *EAGER, number=1)
        trained(one, 3)
        one.save(str(tmp_path / "here"))
        expected = trained(one, 3)
        trained(clone, 1)
        for other, iterations in ((one, 3), (clone, 1)):
            other.reset({})
            other.restore(str(tmp_path / "here"))
            again = trained(other, iterations)
            before = expected[0][COUNT] - len(told(expected[:1]))
            assert again[0][COUNT] == before + len(told(again[:1]))
            if other is one:
                assert told(again) == told(expected)
                assert again[-1][FREQUENCY] == expected[-1][FREQUENCY]

    def test_a_checkpoint_of_before_there_were_any(self, trial, tmp_path):
        without, one = trial(None, "breakthroughs=null", number=0), trial(None, number=0)
        trained(without, 1)
        without.save(str(tmp_path / "here"))
        one.restore(str(tmp_path / "here"))
        assert trained(one, 1)[0][COUNT] == 0

    @pytest.mark.parametrize("word", ["breakthroughs=null", "cluster.rollout=rllib"])
    def test_without_them_nothing_is_logged(self, trial, word):
        assert not any("breakthrough" in name for name in flat_metrics(trial(None, word).train()))

    @pytest.mark.slow
    def test_the_episodes_of_all_runners_are_heard_of(self, trial):
        trained(one := trial(None, "cluster.num_env_runners=2", "cluster.num_envs_per_env_runner=5"), 2)
        state = one.followers["breakthroughs"].get_state()
        assert state["episodes"] == 10  # 2 runners, 5 copies, 10 steps an iteration, 20 an episode
        assert np.isfinite(state["last"][-10:]).all()


# -- callbacks and files -----------------------------------------------------------------------------------------------


class Hook(SweepCallback):
    """Notes what it was told, and after which result."""

    def __init__(self):
        self.results, self.events = [], []

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.results.append(result)

    def on_breakthrough(self, trial_id, iteration, who, level, baseline, deviation):
        newest = self.results[-1]
        assert (newest["trial_id"], newest["training_iteration"]) == (trial_id, iteration)
        self.events.append((trial_id, iteration, who, level, baseline, deviation))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("search", ["none", pytest.param("random", marks=pytest.mark.slow)])
def test_callbacks_hear_of_them_and_the_folder_has_them(tiny, monkeypatch, search, capsys):
    hook, make = Hook(), session.make_callbacks
    monkeypatch.setattr(session, "make_callbacks", lambda *args: [*make(*args), hook])
    words = (f"search={search}", "search.num_samples=1", "logger=tensorboard", "logger.progress=plain")
    sweep = tiny(*words, *EAGER, "stop.iterations=6")
    assert run(sweep, ["test"]) == 0
    folder = RunFolder(next(Path(sweep.results_dir).rglob("manifest.json")).parent)
    assert hook.events
    records = folder.read_breakthroughs()
    assert [(r.trial, r.iteration, r.who, r.level, r.baseline) for r in records] == [e[:5] for e in hook.events]
    with folder.breakthroughs.open() as file:
        assert next(csv.reader(file)) == ["trial", "iteration", "who", "level", "baseline", "deviations"]
    with folder.progress.open() as file:
        newest = {row["trial"]: row for row in csv.DictReader(file)}
    for trial_id, row in newest.items():
        assert int(row[COUNT]) == sum(record.trial == trial_id for record in records)
        assert float(row[FREQUENCY]) == pytest.approx(int(row[COUNT]) * 1000 / 30)
    assert " breakthrough " in capsys.readouterr().out
