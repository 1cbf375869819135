"""The terminal's views: what they show, that they fit, that they give the terminal back and hide no error."""

import io
import itertools
import math
import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import pytest
from rich.console import Console

from marl_tune.live.sweep_state import Budget, SweepState
from marl_tune.live.table import SweepTable, visible
from marl_tune.live.views import LINE_S, REFRESH_S, LiveView, PlainView, ProgressView, progress_view

KEYS = ["algorithm.lr", "algorithm.entropy_coeff", "env.pheromone_decay", "module.hidden_dims"]


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def trial_of(number, status="RUNNING", iteration=0, score=math.nan, seconds=None):
    config = {"algorithm.lr": 0.1 / (number + 1), "algorithm.entropy_coeff": 0, "env.pheromone_decay": 0.98}
    result = {
        "training_iteration": iteration,
        "env_steps": 1000 * iteration,
        "agent_steps": 20_000 * iteration,
        "return_mean_agent": score,
        "steps_per_s": 20_000.0,
        "time_this_iter_s": 1.0,
        "time_total_s": iteration if seconds is None else seconds,
    }
    return SimpleNamespace(
        trial_id=f"3f2a1_{number:05d}",
        status=status,
        config=config | {"module.hidden_dims": [64, 64]},
        last_result=result if iteration else {},
        get_error=lambda: "Traceback\nRuntimeError: CUDA out of memory",
    )


def state_of(trials, budget=None, mode="max", clock=None):
    budget = budget or Budget(len(trials), 20, None, None)
    state = SweepState("return_mean_agent", mode, KEYS, budget, clock or Clock())
    state.update(trials)
    return state


def drawn(state, width=120, height=30, events=()):
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(SweepTable("ant_colony/2026-11-21_10-00-00", state, events))
    return console.file.getvalue().splitlines()


def test_the_table_shows_trials_totals_and_searched_values():
    trials = [trial_of(0, "TERMINATED", 20, 1.5), trial_of(1, iteration=7, score=2.25), trial_of(2, "PENDING")]
    text = "\n".join(drawn(state_of(trials, Budget(4, 20, None, None))))
    assert "1 running, 1 finished, 2 waiting" in text  # one is not made yet
    assert "best 2.25 in trial 00001 at iteration 7" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("00001"))
    assert " ".join(row.split()) == "00001 running 2.25 0.05 0 0.98 [64, 64] 7/20 7000 20k 0:07"


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("height", [16, 24, 50])
@pytest.mark.parametrize("number", [1, 4, 40, 200])
def test_the_table_fits_every_terminal(width, height, number):
    trials = [
        trial_of(n, ["RUNNING", "PENDING", "TERMINATED", "ERROR"][n % 4], 5 * (n % 3), n / 7) for n in range(number)
    ]
    lines = drawn(state_of(trials), width, height, ["event " * 50] * 3)
    assert len(lines) < height  # the cursor stands on the line below
    assert max(map(len, lines)) <= width


def test_what_has_no_room_is_named():
    trials = [trial_of(n, "PENDING" if n > 9 else "RUNNING", n < 10, n / 10) for n in range(40)]
    text = "\n".join(drawn(state_of(trials), width=80, height=24))
    assert "not shown: " in text
    assert "hidden_dims" in text.split("not shown: ")[1]
    assert "and 25 waiting" in text
    assert all(f"0000{n}" in text for n in range(10))


def test_the_best_the_failed_and_the_running_are_kept_in_order():
    trials = [trial_of(n, "TERMINATED", 20, score=-n) for n in range(20)]
    trials[7], trials[12] = trial_of(7, "ERROR", 3, -99.0), trial_of(12, iteration=2, score=-50.0)
    trials[19] = trial_of(19, "TERMINATED", 20, score=9.0)
    assert [trial.id[-2:] for trial in visible(state_of(trials), 4)] == ["00", "07", "12", "19"]
    assert [trial.id[-2:] for trial in visible(state_of(trials, mode="min"), 2)] == ["07", "12"]


def test_the_best_is_of_all_results_and_follows_the_mode():
    for mode, best in (("max", 3.0), ("min", 1.0)):
        state, trial = state_of([], mode=mode), trial_of(0)
        for iteration, score in enumerate([math.nan, 2.0, 3.0, 1.0, 2.0], start=1):
            state.add_result(trial, {"training_iteration": iteration, "return_mean_agent": score})
        assert state.best.score == best


def test_a_resumed_sweep_knows_its_best():
    assert state_of([trial_of(0, "TERMINATED", 20, 4.0), trial_of(1)]).best.score == 4.0


def test_the_speed_is_of_the_last_minute():
    clock = Clock()
    state, trial = state_of([], clock=clock), trial_of(0)
    for _ in range(30):
        clock.now += 1
        state.add_result(trial, {"training_iteration": 1, "steps_per_s": 500.0, "time_this_iter_s": 2.0})
    assert state.steps_per_s() == pytest.approx(1000)
    clock.now += 60
    assert state.steps_per_s() == pytest.approx(0, abs=20)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(4, 20, None, None), 300.0),  # a quarter of the work took 100 s
        (Budget(4, None, 400_000, None), 300.0),
        (Budget(8, 20, None, None), 700.0),
        (Budget(4, 20, None, 150.0), 50.0),
        (Budget(4, None, None, 150.0), 50.0),
        (Budget(4, None, None, None), None),
        (Budget(None, 20, None, None), 300.0),
    ],
)
def test_the_time_left(budget, expected):
    clock = Clock()
    state = state_of([], budget, clock=clock)
    clock.now += 100
    state.update([trial_of(n, iteration=5) for n in range(4)])
    assert state.time_left() == (expected if expected is None else pytest.approx(expected))


def test_the_time_left_is_not_below_what_a_running_trial_needs():
    clock = Clock()
    state = state_of([], Budget(2, 20, None, None), clock=clock)
    clock.now += 100
    state.update([trial_of(0, "TERMINATED", 20), trial_of(1, iteration=5, seconds=60)])
    assert state.time_left() == pytest.approx(180)


def test_work_of_earlier_sessions_is_not_counted_as_speed():
    clock = Clock()
    state = state_of([trial_of(0, "TERMINATED", 20), trial_of(1, iteration=10)], clock=clock)
    assert state.time_left() is None
    clock.now += 100
    state.update([trial_of(0, "TERMINATED", 20), trial_of(1, iteration=15, seconds=1)])
    assert state.time_left() == pytest.approx(100)


def view_of(kind, **console):
    console = Console(file=io.StringIO(), width=120, height=30, **console)
    clock = Clock()
    state = SweepState("return_mean_agent", "max", KEYS, Budget(2, 20, None, None), clock)
    view = kind("ant_colony", state, console, clock) if kind is PlainView else kind("ant_colony", state, console)
    view.setup()
    return view, clock


def tell(view, event, trial, **words):
    getattr(view, event)(iteration=0, trials=[trial], trial=trial, **words)


def test_plain_lines_tell_of_every_event_and_of_progress_now_and_then():
    view, clock = view_of(PlainView)
    trial = trial_of(0)
    tell(view, "on_trial_start", trial)
    tell(view, "on_trial_start", trial)  # after a pause
    for iteration in range(1, 41):
        clock.now += 1
        trial.last_result = trial_of(0, iteration=iteration, score=iteration / 10).last_result
        tell(view, "on_trial_result", trial, result=trial.last_result)
        view.on_step_end(iteration=iteration, trials=[trial])
    view.on_exploit(trial.trial_id, "3f2a1_00001", 40, {"algorithm.lr": 0.1}, {"algorithm.lr": 0.12})
    tell(view, "on_trial_recover", trial)
    tell(view, "on_trial_error", trial)
    view.on_step_end(iteration=41, trials=[trial])
    tell(view, "on_trial_complete", trial)
    lines = view.console.file.getvalue().splitlines()
    words = [line.split()[1] for line in lines]
    assert words == ["sweep", "started", *["progress"] * (40 // int(LINE_S)), "exploit", "failed", "failed", "finished"]
    progress = lines[3]
    assert progress.startswith("[0:11] progress 1 running of 2, iteration 11/20, best 1.1 (3f2a1_00000), ")
    assert progress.endswith("agent-steps/s, about 0:29 left")
    assert "algorithm.lr 0.1 → 0.12" in lines[-4]
    assert lines[-2].endswith("failed   3f2a1_00000: RuntimeError: CUDA out of memory")
    assert "after 40 iterations, 800,000 agent-steps, 0:40" in lines[-1]
    assert "\x1b" not in view.console.file.getvalue()


@pytest.mark.parametrize("kind", [LiveView, PlainView])
def test_breakthroughs_of_an_iteration_are_one_line(kind):
    view, _ = view_of(kind, force_terminal=kind is LiveView)
    trial, lines = trial_of(1, iteration=40), []
    view.show = lambda line, important: lines.append(line)
    for who, baseline in (("ant_3", 1.0), ("team", 12.3), ("ant_5", 1.5)):
        view.on_breakthrough(trial.trial_id, 40, who, level=18.94, baseline=baseline, deviation=0.5)
    assert lines == []
    view.on_step_end(iteration=1, trials=[trial])
    view.on_breakthrough(trial.trial_id, 55, "ant_5", level=3.25, baseline=2.0, deviation=0.1)
    view.on_experiment_end(trials=[trial])
    assert [line.partition("  ")[2] for line in lines] == [
        "team return 12.3 → 18.94 at iteration 40, 2 more returns with it",
        "ant_5 return 2 → 3.25 at iteration 55",
    ]
    assert lines[0].startswith("breakthrough 00001" if kind is LiveView else "breakthrough 3f2a1_00001")


def test_the_table_is_drawn_at_most_twice_a_second(monkeypatch):
    view, clock = view_of(LiveView, force_terminal=True)
    drawings = []

    def drawn(title, state, events):
        drawings.append(clock.now)
        return SweepTable(title, state, events)

    monkeypatch.setattr("marl_tune.live.views.SweepTable", drawn)
    trial = trial_of(0)
    for iteration in range(1, 101):
        clock.now += 0.05
        tell(view, "on_trial_result", trial, result=trial_of(0, iteration=iteration).last_result)
        view.on_step_end(iteration=iteration, trials=[trial])
    view.close()
    assert 5 <= len(drawings) <= 5.0 / REFRESH_S + 1
    assert min(b - a for a, b in itertools.pairwise(drawings)) >= REFRESH_S - 1e-6


def test_a_failure_stays_on_the_screen():
    view, _ = view_of(LiveView, force_terminal=True)
    trial = trial_of(3)
    written = trial.get_error
    trial.get_error = lambda: None  # Tune announces a failure before it writes down what it was
    tell(view, "on_trial_error", trial)
    trial.get_error = written
    view.on_step_end(iteration=1, trials=[trial])
    view.close()
    assert "failed   00003: RuntimeError: CUDA out of memory" in view.console.file.getvalue()


@pytest.mark.parametrize("kind", [LiveView, PlainView, ProgressView])
def test_an_error_in_the_sweep_is_raised_and_the_terminal_given_back(kind):
    view, _ = view_of(kind, force_terminal=True)
    with pytest.raises(RuntimeError, match="in the driver"), view:
        raise RuntimeError("in the driver")
    view.close()
    text = view.console.file.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is shown as often as hidden
    assert ("\x1b[?25l" in text) == (kind is LiveView)


@pytest.mark.parametrize("kind", [LiveView, PlainView, ProgressView])
def test_tune_can_pickle_a_view_that_is_shown(kind):
    view, _ = view_of(kind, force_terminal=True)
    again = cloudpickle.loads(cloudpickle.dumps(view))
    view.close()
    again.on_trial_error(iteration=0, trials=[], trial=trial_of(0))
    again.on_experiment_end(trials=[])


@pytest.mark.parametrize(
    ("progress", "terminal", "kind"),
    [
        ("auto", True, LiveView),
        ("auto", False, PlainView),
        ("live", False, LiveView),
        ("plain", True, PlainView),
        ("off", True, ProgressView),
    ],
)
def test_the_view_that_is_asked_for(progress, terminal, kind):
    console = Console(file=io.StringIO(), force_terminal=terminal)
    assert type(progress_view(progress, "t", "m", "max", [], Budget(1, 1, None, None), console)) is kind


def test_on_a_real_terminal_what_others_print_stays_above_the_table():
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from {Path(__file__).stem} import *\n"
        "view = progress_view('auto', 'sweep', 'return_mean_agent', 'max', KEYS, Budget(2, 20, None, None))\n"
        "trials = [trial_of(0, iteration=3, score=1.0)]\n"
        "with view:\n"
        "    view.setup()\n"
        "    view.on_step_end(iteration=1, trials=trials)\n"
        "    print('a line of a worker')\n"
        "    view.on_experiment_end(trials=trials)\n"
        "print('the driver goes on')\n"
    )
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=child, stderr=child, env=environment)
    os.close(child)
    parts = []
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    text = b"".join(parts).decode()
    assert process.wait() == 0, text
    worker, after = text.index("a line of a worker"), text.index("the driver goes on")
    assert text.index("00000", worker) < after  # the table was drawn again below it
    assert text.index("\x1b[?25h") < after
