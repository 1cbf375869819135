"""Settings compared over seeds: their means and intervals, which trials make them up, and how the page draws them."""

import math
import re
import statistics

import numpy as np
import pytest

from marl_tune.report.charts import Curve, mean_curves, spread
from marl_tune.report.comparison import T_975, compare, mean_and_margin
from marl_tune.report.comparison import mean_curves as lines_of
from marl_tune.report.data import ReportData
from marl_tune.report.page import render
from marl_tune.results.records import LineageRecord, TrialRecord
from marl_tune.results.run_folder import RunFolder

STEPS = {1: range(0, 1001, 100), 2: range(50, 1051, 100), 3: range(0, 1001, 250)}  # seed -> when it reported
SLOPES = {"plasticity": (2.0, 2.2, 2.4), "mlp": (1.0, 1.2, 1.1), "cnn": (2.0, 2.5, 1.8)}  # of each seed, per 1000 steps


def seeded(slopes=SLOPES, key="module", mode="max", status="TERMINATED"):
    """A sweep whose curves are straight lines through 0, the trials of the settings and seeds mixed."""
    data = ReportData(RunFolder("results/seeds/now"), mode=mode)
    pairs = [(name, seed) for seed in STEPS for name in slopes if seed <= len(slopes[name])]
    for number, (name, seed) in enumerate(pairs):
        trial = f"t_{number:05d}"
        data.curves[trial] = [(float(x), slopes[name][seed - 1] * x / 1000) for x in STEPS[seed]]
        data.trials.append(TrialRecord(trial, status, {key: name, "seed": seed}, 0.0, 10, agent_steps=1000))
    return data


def test_settings_are_averaged_over_their_own_seeds_only():
    settings = {setting.values["module"]: setting for setting in compare(seeded())}
    assert list(settings) == ["plasticity", "cnn", "mlp"]
    for name, slopes in SLOPES.items():
        setting, mean = settings[name], statistics.mean(slopes)
        half = 4.3027 * statistics.stdev(slopes) / math.sqrt(3)
        assert (setting.seeds, setting.tried) == (3, 3)
        assert setting.steps.tolist() == sorted({x for steps in STEPS.values() for x in steps if 50 <= x <= 1000})
        assert setting.means == pytest.approx(mean * setting.steps / 1000)
        assert setting.margins == pytest.approx(half * setting.steps / 1000, rel=1e-3)
        assert setting.score == pytest.approx(0.95 * mean)  # of a line: in the middle of the last tenth
        assert setting.interval == pytest.approx((0.95 * (mean - half), 0.95 * (mean + half)), rel=1e-3)


def test_the_final_score_is_the_mean_of_the_last_tenth():
    data = seeded({"mlp": (0, 0)})
    data.curves["t_00000"] = [(0.0, 9.0), (850.0, 9.0), (900.0, 1.0), (980.0, 1.0), (1000.0, 2.0)]
    data.curves["t_00001"] = [(0.0, 5.0), (1000.0, 5.0)]
    assert compare(data)[0].score == pytest.approx((1 + 0.5 * 20 / 100 + 5) / 2)


def test_the_quantiles_are_those_of_students_t():
    assert len(T_975) == 30
    for freedom, quantile in enumerate(T_975, start=1):
        x = np.linspace(0, quantile, 20001)
        scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
        density = scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        assert np.trapezoid(density, x) == pytest.approx(0.475, abs=6e-5)


def test_the_interval_of_a_mean():
    samples = np.random.default_rng(0).normal(size=(8, 4))
    mean, margin = mean_and_margin(samples)
    assert mean == pytest.approx(samples.mean(axis=0))
    assert margin == pytest.approx([2.3646 * statistics.stdev(column) / math.sqrt(8) for column in samples.T], rel=1e-3)
    many = mean_and_margin(np.tile([[0.0], [1.0]], (50, 1)))[1]
    assert many == pytest.approx(2.042 * math.sqrt(25 / 99) / 10)
    assert mean_and_margin([[3.0]])[1] is None


def test_words_say_whether_an_interval_is_apart_from_the_bests():
    best, *others = compare(seeded())
    assert [setting.against(best) for setting in (best, *others)] == ["best", "overlaps", "apart"]
    best, other = compare(seeded({"mlp": (1.0, 1.1), "cnn": (2.0,)}, mode="min"))
    assert (best.values["module"], best.against(best), other.against(best)) == ("mlp", "best", "unknown")
    assert (other.seeds, other.margins, other.interval) == (1, None, None)


def test_trials_that_differ_in_more_than_the_seed_are_not_compared():
    assert compare(seeded({"mlp": (1.0,), "cnn": (2.0,)})) == []
    assert compare(seeded(status="unfinished")) == []
    data = seeded({"mlp": (1.0, 1.2)})
    data.trials[1].overrides["module.hidden_dims"] = [64, 64]
    assert compare(data) == []
    assert "<h2>Compared" not in render(data)


def test_a_population_whose_settings_changed_is_not_compared():
    data = seeded({"mlp": (1.0, 1.2)})
    assert compare(data)
    data.lineage.append(LineageRecord(5, "t_00000", "t_00001"))
    assert compare(data) == []


def test_the_same_seed_twice_counts_once():
    data = seeded({"mlp": (1.0, 1.2)})
    data.trials.append(TrialRecord("again", "TERMINATED", dict(data.trials[0].overrides), agent_steps=10))
    data.curves["again"] = [(0.0, 50.0), (10.0, 50.0)]
    (setting,) = compare(data)
    assert (setting.seeds, setting.score) == (2, pytest.approx(0.95 * 1.1))


def test_trials_that_failed_or_were_cut_off_are_left_out():
    data = seeded({"mlp": (1.0, 1.2, 9.0), "cnn": (2.0, 3.0)})
    by_setting = {(t.overrides["module"], t.overrides["seed"]): t for t in data.trials}
    by_setting["mlp", 3].status = "ERROR"
    by_setting["cnn", 1].status = by_setting["cnn", 2].status = "RUNNING"  # stopped by hand: all that there is
    cnn, mlp = compare(data)
    assert (mlp.seeds, mlp.tried, mlp.score) == (2, 3, pytest.approx(0.95 * 1.1))
    assert (cnn.seeds, cnn.tried, cnn.score) == (2, 2, pytest.approx(0.95 * 2.5))
    assert "Trials that failed" in render(data)
    by_setting["mlp", 2].status = "RUNNING"
    assert compare(data)[1].seeds == 1
    for trial in data.trials:
        trial.status = "ERROR"
    assert [(s.seeds, s.score) for s in compare(data)] == [(0, None), (0, None)]
    assert "there is no band" in render(data)


def test_steps_that_were_done_again_count_once():
    data = seeded({"mlp": (0, 0)})
    data.curves["t_00000"] = [(0.0, 0.0), (500.0, 0.0), (1000.0, 0.0), (500.0, 4.0), (1000.0, 4.0)]
    data.curves["t_00001"] = [(0.0, 0.0), (1000.0, 0.0)]
    (setting,) = compare(data)
    assert setting.steps.tolist() == [0, 500, 1000]
    assert setting.means.tolist() == [0, 2, 2]


def test_the_page_compares_settings_best_first():
    html = render(seeded())
    part = html[html.index("<h2>Compared") : html.index("<h2>Learning curves")]
    assert "95 % t-interval of that mean over n = 3 seeds" in part
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", part)[1:]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    assert [row[0] for row in cells] == ["plasticity", "cnn", "mlp"]
    half = 0.95 * 4.303 * 0.2 / math.sqrt(3)
    assert cells[0][1:] == ["3", "1000", "2.090", f"{2.09 - half:.3f} to {2.09 + half:.3f}", "best"]
    assert [row[-1] for row in cells] == ["best", "overlaps", "apart"]
    assert part.count('<path class="band') == part.count('<path class="curve') == 3
    assert "<h2>Settings" not in html  # the seed is no setting to be tuned


def test_labels_name_the_setting_without_the_seed():
    data = seeded({0.001: (1.0, 1.2), 0.0003: (1.0, 1.4)}, key="algorithm.lr")
    assert ">lr 0.001</text>" in render(data)
    for trial in data.trials:
        del trial.overrides["algorithm.lr"]
        trial.overrides["seed"] = trial.id
    assert ">all trials</text>" in render(data)


def test_lines_and_bands_are_means_and_intervals():
    settings = compare(seeded())
    for setting, line in zip(settings, lines_of(settings, {}), strict=True):
        assert line.label == setting.values["module"]
        assert line.points[-1] == (1000, setting.means[-1])
        mean, half = setting.score / 0.95, setting.margin / 0.95  # at the end of a line through 0
        assert line.band[-1] == pytest.approx((mean - half, mean + half))


def test_the_band_is_drawn_to_scale():
    points, band = [(0.0, 1.0), (10.0, 2.0)], [(0.75, 1.25), (1.75, 2.25)]
    picture = mean_curves([Curve("a", "winner", points, band), Curve("b", "c1", [(0.0, 0.0), (5.0, 0.0)])], "score")
    ticks_at = dict(re.findall(r'y="([\d.]+)" class="tick end">([-\d.]+)<', picture))
    (low_at, low), *_, (high_at, high) = [(float(at) - 5, float(tick)) for at, tick in ticks_at.items()]

    def drawn(style):
        """Scores of a path's corners."""
        (path,) = re.findall(rf'class="{style}" d="([^"]+)"', picture)
        places = [float(place) for place in re.findall(r"[\d.]+ ([\d.]+)", path)]
        return [low + (place - low_at) * (high - low) / (high_at - low_at) for place in places]

    assert drawn("curve winner") == pytest.approx([1, 2], abs=0.01)
    assert drawn("band winner") == pytest.approx([1.25, 2.25, 1.75, 0.75], abs=0.01)
    assert picture.count('class="band') == 1  # none where there is no interval
    assert "beyond the picture" not in picture
    assert "beyond the picture" in mean_curves([Curve("a", "winner", points, [(0.0, 99.0)] * 2)], "score")


def test_labels_of_lines_that_meet_do_not_overlap():
    picture = mean_curves([Curve(name, "c1", [(0.0, 0.0), (9.0, 1.0)]) for name in "abcd"], "score")
    places = [float(at) for at in re.findall(r'y="([\d.]+)" class="name c1"', picture)]
    assert np.diff(places) == pytest.approx([18, 18, 18])


def test_labels_keep_their_order_and_distance():
    places = spread([50, 52, 10, 51], 10, 0, 100)
    assert places == pytest.approx([41, 61, 10, 51])
    assert spread([99, 98, 100], 10, 0, 100) == pytest.approx([89.5, 79.5, 99.5], abs=1)
    assert spread([5] * 11, 20, 0, 100) == pytest.approx(range(0, 101, 10))
