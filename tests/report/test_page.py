"""The report: it shows what the files say, stands alone in one file, and copes with files that are missing."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from marl_tune.report.__main__ import main
from marl_tune.report.charts import Axis, Curve, learning_curves, ticks
from marl_tune.report.data import load
from marl_tune.report.page import render, write_report
from marl_tune.results.manifest import begin_manifest, finish_manifest
from marl_tune.results.records import BreakthroughRecord, LineageRecord, TrialRecord
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import csv_text, write_json, write_text

CONFIG = """\
name: ant_colony
seed: 1
env: {name: ant_colony, grid_size: [30, 30], n_agents: 20}
module: {name: ant_colony, hidden_dims: [64, 64]}
sharing: {name: parameter_sharing}
algorithm: {name: ppo, lr: 0.0003}
search: {name: pbt, metric: return_mean_agent, mode: max}
results_dir: results
"""
TRIALS = [f"3f2a1_{number:05d}" for number in range(6)]
ITERATIONS = 20
EXPLOITS = [(8, 2, 5), (8, 0, 4), (14, 5, 3), (17, 5, 1)]  # (iteration, from, to)


def simulated(trials):
    """(progress rows, final values of each trial, exploits) of an invented sweep in which trial 0 fails."""
    rng = np.random.default_rng(0)
    values = [
        {"algorithm.lr": float(10 ** rng.uniform(-4.5, -2.8)), "algorithm.entropy_coeff": float(rng.uniform(0, 0.02))}
        for _ in trials
    ]
    skill = rng.uniform(0.6, 1.0, len(trials))
    rows, lineage = [], []
    for iteration in range(1, ITERATIONS + 1):
        for number, trial in enumerate(trials):
            score = 2.1 * skill[number] * (1 - math.exp(-iteration / 6)) + rng.normal(0, 0.04)
            row = {"trial": trial, "row": iteration, "iteration": iteration, "env_steps": iteration * 1000}
            row |= {"agent_steps": iteration * 20000, "return_mean_agent": score if iteration > 1 else math.nan}
            if number > 0 or iteration <= 11:
                rows.append(row)
        for step, source, target in EXPLOITS:
            if step == iteration:
                new = {key: value * 1.2 for key, value in values[source].items()}
                lineage.append(LineageRecord(step, trials[source], trials[target], values[target], new))
                values[target], skill[target] = new, skill[source] * 1.08
    return rows, values, lineage


def record_of(trial, number, rows, values):
    mine = [row for row in rows if row["trial"] == trial]
    last = mine[-1]
    error = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB" if number == 0 else None
    return TrialRecord(
        id=trial,
        status="ERROR" if error else "TERMINATED",
        overrides=values,
        score=last["return_mean_agent"],
        iterations=len(mine),
        seconds=1.9 * len(mine),
        env_steps=last["env_steps"],
        agent_steps=last["agent_steps"],
        checkpoint=None if error else f"tune/{trial}/checkpoint_000019",
        error=error,
    )


def candidate_of(record, iqm, low, high):
    candidate = {"trial": record.id, "checkpoint": record.checkpoint, "iteration": record.iterations, "iqm": iqm}
    return candidate | {
        "ci95": [low, high],
        "return_mean_agent": iqm,
        "return_sum_team": 20 * iqm,
        "episodes": 100,
    }


def run_folder(tmp_path, trials=TRIALS):
    """A finished PBT run of an ant colony, as the driver would leave it."""
    folder = RunFolder.create(tmp_path / "results", "ant_colony")
    write_text(folder.config, CONFIG)
    begin_manifest(folder, {"sweep": 1, "selection": 20000}, ["python", "-m", "marl_tune", "+experiment=ant_colony"])
    rows, values, lineage = simulated(trials)
    records = [record_of(trial, number, rows, values[number]) for number, trial in enumerate(trials)]
    write_text(folder.progress, csv_text(list(rows[0]), rows))
    folder.write_trials(records)
    folder.write_lineage(lineage)
    scores = {3: (2.17, 2.12, 2.21), 5: (2.15, 2.09, 2.2), 2: (1.98, 1.9, 2.05)}
    candidates = [candidate_of(records[number], *score) for number, score in scores.items()]
    evaluation = {"candidates": candidates, "winner": candidates[0], "separated": False, "metric": "return_mean_agent"}
    baseline = {"name": "Forager", "iqm": 2.09, "ci95": [2.05, 2.13], "episodes": 100}
    evaluation |= {"seeds": list(range(20000, 20100)), "confidence": 0.95, "baseline": baseline}
    write_json(folder.evaluation, evaluation)
    folder.write_summary(
        status="failed",
        name="ant_colony",
        seed=1,
        metric="return_mean_agent",
        mode="max",
        wall_time_s=83.2,
        trials=records,
        best={
            "trial": trials[3],
            "overrides": values[3],
            "checkpoint": "best/checkpoint",
            "evaluation": candidates[0],
        },
    )
    finish_manifest(folder, "failed")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run_folder(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(folder):
    return write_report(folder).read_text(encoding="utf-8")


def test_the_page_is_one_file_without_the_network(page):
    assert page.startswith("<!doctype html>")
    assert "{{" not in page
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://""", page)
    assert "prefers-color-scheme: dark" in page


def test_every_searched_value_of_every_trial_is_in_the_table(folder, page):
    for record in folder.read_trials():
        for value in record.overrides.values():
            assert f'data-value="{value}"' in page
    assert page.count("<tr") == 1 + len(TRIALS) + 1 + 3  # trials with head, and the winner's past of three parts


def test_the_greatest_breakthroughs_are_told(tmp_path, page):
    assert "Breakthroughs" not in page
    folder = run_folder(tmp_path)
    found = [BreakthroughRecord(TRIALS[number % 3], number, "team", 12.5, 3.25, 5.0 + number) for number in range(12)]
    folder.write_breakthroughs([*found, BreakthroughRecord(TRIALS[4], 99, "ant_7", 1.0, 0.0, math.inf)])
    page = render(load(folder))
    table = page[page.index("<h2>Breakthroughs") : page.index("<h2>Trials")]
    assert "13 in all, the 10 greatest here" in table
    assert table.count("<tr") == 1 + 10
    assert table.index("ant_7") < table.index(f'data-value="{found[11].deviations}"')
    assert "12.50" in table
    assert f'data-value="{found[2].deviations}"' not in table


def test_the_winner_stands_first_and_the_verdict_tells_of_chance(page):
    assert "Trial 00003 won" in page
    assert "2.120 to 2.210" in page
    assert "not larger than chance explains" in page
    assert "The scripted Forager has 2.090" in page
    assert "trial 00005, which scored 2.150 (2.090 to 2.200), may be as good" in page
    assert page.index('<tr class="winner">') < page.index("<td>00005</td>")


def test_the_verdict_of_a_separated_winner(folder):
    data = load(folder)
    data.evaluation["separated"] = True
    assert "is larger than chance explains" in render(data)


def test_the_verdict_without_a_rival(folder):
    data = load(folder)
    first = data.evaluation["candidates"][0]
    data.evaluation["candidates"] = [first, first | {"iteration": 15, "checkpoint": "earlier", "iqm": 2.1}]
    assert "No other trial" in render(data)


def test_the_winners_past_goes_back_through_its_donors(folder):
    past = load(folder).ancestry()
    assert [(part.trial, part.start, part.stop) for part in past] == [
        (TRIALS[2], 0, 8),
        (TRIALS[5], 8, 14),
        (TRIALS[3], 14, 20),
    ]
    records = {(r.to, r.step): r for r in folder.read_lineage()}
    assert past[1].values == records[TRIALS[5], 8].new
    assert past[2].values == records[TRIALS[3], 14].new
    assert past[1].values["algorithm.lr"] == pytest.approx(1.2 * past[0].values["algorithm.lr"])


def test_the_failed_trial_and_its_error_are_shown(page):
    assert "CUDA out of memory" in page
    assert 'class="chip failed"' in page
    assert "6, 1 failed" in page


def test_what_files_hold_is_escaped(folder):
    data = load(folder)
    data.trials[0].error = "<script>alert(1)</script>"
    data.config_text = "name: <b>"
    html = render(data)
    assert "<script>alert" not in html
    assert "&lt;b&gt;" in html


def test_a_run_that_was_cut_off_has_a_report_too(tmp_path):
    folder = run_folder(tmp_path)
    for path in (folder.summary, folder.evaluation, folder.trials, folder.lineage, folder.manifest):
        path.unlink()
    with folder.progress.open("a") as file:
        file.write("3f2a1_00001,21,2")  # half a line
    html = write_report(folder).read_text()
    assert "the run has not finished" in html
    assert html.count('<path class="curve') == len(TRIALS)
    assert 'class="chip not finished"' in html
    folder.progress.unlink()
    assert "No trial has reported yet" in write_report(folder).read_text()


def test_curves_break_where_the_steps_go_back():
    points = [(0.0, 0.0), (10.0, 1.0), (5.0, 2.0), (20.0, 3.0)]
    path = re.search(r' d="([^"]+)"', learning_curves([Curve("a", "winner", points)], "score")).group(1)
    assert re.findall("[ML]", path) == ["M", "L", "M", "L"]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 41), (1e-5, 3e-5), (0, 4e6), (99.1, 99.2)])
def test_ticks_are_round_and_reach_around_the_values(low, high):
    marks = ticks(low, high)
    step = marks[1] - marks[0]
    assert marks[0] <= low
    assert marks[-1] >= high - 1e-9 * abs(high)
    assert 3 <= len(marks) <= 9
    assert float(f"{step:.0e}") == pytest.approx(step)
    assert f"{step:.0e}"[0] in "125"


def test_forty_trials_are_drawn_and_named_apart(tmp_path):
    html = write_report(run_folder(tmp_path, [f"t_{n:05d}" for n in range(40)])).read_text()
    assert html.count('<path class="curve') == 40
    assert "34 more" in html


def test_the_command_writes_the_report_and_refuses_other_folders(folder, tmp_path, capsys):
    folder.report.unlink()
    assert main([str(folder.path)]) == 0
    assert capsys.readouterr().out.strip() == str(folder.report)
    assert folder.report.exists()
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_report_needs_neither_ray_nor_torch(folder):
    code = (
        "import sys, json; from marl_tune.report.__main__ import main; main(sys.argv[1:]);"
        " print(json.dumps([name for name in ('ray', 'torch', 'hydra') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder.path)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e12, -7.5])
def test_an_axis_of_values_that_differ_by_rounding_only_is_an_axis_of_one_value(value):
    axis = Axis([value, math.nextafter(value, math.inf)], 0, 100)
    assert axis.low < value < axis.high
    assert 0 < axis(value) < 100
    assert len({axis.label(tick) for tick in axis.ticks}) == len(axis.ticks)
