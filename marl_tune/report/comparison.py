"""Compares settings: averages trials that differ only in their seed, with a confidence interval over seeds.

One seed says little: the same setting can learn fast with one seed and slowly with the next (Henderson et al. 2018,
https://arxiv.org/abs/1709.06560). The intervals here are over seeds; those of the evaluation are over episodes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marl_tune.report.charts import LINE_STYLES, Curve
from marl_tune.report.data import ReportData
from marl_tune.results.formatting import format_value
from marl_tune.results.records import TrialRecord
from marl_tune.results.text_files import as_json

LAST = 0.1  # the final score is the mean over this last share of a curve's agent-steps
UNEQUAL = 1.05  # above this ratio of their agent-steps, two settings do not have equal experience

# Student's t: 97.5 % quantiles for 1 to 30 degrees of freedom, which leave 2.5 % on either side of a 95 % interval, of
# the NIST/SEMATECH e-Handbook of Statistical Methods, https://www.itl.nist.gov/div898/handbook/eda/section3/eda3672.htm
T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)

Points = Sequence[tuple[float, float]]  # (agent-steps, score) in order of time


@dataclass(frozen=True)
class Setting:
    """All trials with the same searched values, whatever their seed, averaged."""

    values: dict[str, object]  # dotted key -> value, without the seed
    tried: int  # seeds that the sweep ran, at least 1
    seeds: int  # seeds averaged, [0, tried]: trials that failed or were cut off are left out
    steps: NDArray[np.float64]  # (points,) agent-steps at which any seed reported, as far as all seeds have scores
    means: NDArray[np.float64]  # (points,) mean over seeds of search.metric
    margins: NDArray[np.float64] | None  # (points,) half of the 95 % interval's width; None with fewer than 2 seeds
    score: float | None  # mean over seeds of their final scores; None: no seed has one
    margin: float | None  # half of its 95 % interval's width; None with fewer than 2 seeds

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the score."""
        if self.score is None or self.margin is None:
            return None
        return self.score - self.margin, self.score + self.margin

    def label(self, names: Mapping[str, str]) -> str:
        """The setting in short: words as they are, other values after the name of their key in `names`."""
        words = [
            value if isinstance(value, str) else f"{names.get(key, key)} {format_value(value)}"
            for key, value in self.values.items()
        ]
        return ", ".join(words) or "all trials"

    def against(self, best: Setting) -> str:
        """Compares its interval with that of `best`: best | apart | overlaps | unknown (one has none)."""
        if self is best:
            return "best"
        if self.interval is None or best.interval is None:
            return "unknown"
        (low, high), (best_low, best_high) = self.interval, best.interval
        return "apart" if high < best_low or low > best_high else "overlaps"


def compare(data: ReportData) -> list[Setting]:
    """The settings of a sweep, the best first; empty if no two trials differ only in their seed.

    Each trial has a seed of its own, even if the seed is not searched. A population has no settings to compare, because
    its trials change them while they train.
    """
    if data.lineage:
        return []
    groups: dict[str, dict[str, TrialRecord]] = defaultdict(dict)  # setting -> seed -> trial
    for trial in data.trials:
        if trial.status == "unfinished":
            continue  # its settings are not known
        seed = as_json(trial.overrides.get("seed", trial.id))
        group = groups[as_json(sorted(_values(trial).items()))]
        if seed not in group or trial.agent_steps > group[seed].agent_steps:
            group[seed] = trial  # the same seed twice is the same training twice, not a second sample
    if all(len(group) < 2 for group in groups.values()):
        return []
    sign = -1 if data.mode == "max" else 1
    settings = [_setting(list(group.values()), data.curves) for group in groups.values()]
    return sorted(settings, key=lambda setting: math.inf if setting.score is None else sign * setting.score)


def mean_and_margin(samples: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Mean over seeds and half the width of its 95 % interval, t · s / √n with n - 1 degrees of freedom.

    Args:
        samples: (n, ...) one entry for each seed, n at least 1.

    Returns:
        Mean and half width, each of the samples' shape without the first axis; no half width if n is 1. Above 30
        degrees of freedom, the quantile of 30 is used: the interval is then wider by 4 % at most.
    """
    values = np.asarray(samples, dtype=np.float64)
    n = len(values)
    if n < 2:
        return values.mean(axis=0), None
    return values.mean(axis=0), T_975[min(n - 1, len(T_975)) - 1] * values.std(axis=0, ddof=1) / math.sqrt(n)


def note(settings: Sequence[Setting]) -> str:
    """The sentence that explains the picture: what the band is, and over how many seeds."""
    counts = sorted({setting.seeds for setting in settings if setting.seeds})
    if not counts or counts[-1] < 2:
        return "No setting has two seeds with a score, so there is no band."
    several = [count for count in counts if count > 1]
    n = f"n = {several[0]} seeds" if len(several) == 1 else f"n = {several[0]} to {several[-1]} seeds (see the table)"
    words = (
        "Line: mean over seeds, linearly interpolated between their results, as far as all of the setting's seeds got."
        f" Band: 95 % t-interval of that mean over {n}, at each point by itself."
    )
    words += " A setting with one seed has no band." if counts[0] == 1 else ""
    grey = len(settings) - 2 * len(LINE_STYLES)
    return words + (f" In grey: the {grey} ranked last." if grey > 0 else "")


def caveats(settings: Sequence[Setting]) -> str:
    """The sentences below the table: what its columns mean, and what makes the comparison unfair."""
    words = (
        f"Final score: mean over the last {100 * LAST:g} % of the agent-steps, then over seeds; its 95 % t-interval."
        " Apart: the interval does not overlap the best's. Settings whose intervals overlap may still differ:"
        " more seeds make the intervals narrower."
    )
    if any(setting.seeds < setting.tried for setting in settings):
        words += " Trials that failed, were cut off or have no score are left out."
    ends = [setting.steps[-1] for setting in settings if setting.steps.size]
    if ends and max(ends) > UNEQUAL * min(ends):
        words += " Their agent-steps differ: the final scores are not at equal experience."
    return words


def mean_curves(settings: Sequence[Setting], names: Mapping[str, str]) -> list[Curve]:
    """The picture's lines of ranked settings: one colour each, then the same colours dashed, then grey.

    Args:
        settings: the best first.
        names: dotted key -> short name, for the labels.
    """
    curves = []
    for rank, setting in enumerate(settings):
        turn, colour = divmod(rank, len(LINE_STYLES))
        style = LINE_STYLES[colour] if turn < 2 else "other"
        points = list(zip(setting.steps.tolist(), setting.means.tolist(), strict=True))
        band: list[tuple[float, float]] = []
        if setting.margins is not None:
            low, high = setting.means - setting.margins, setting.means + setting.margins
            band = list(zip(low.tolist(), high.tolist(), strict=True))
        curves.append(Curve(setting.label(names), style, points, band, dashed=turn == 1))
    return curves


def _values(trial: TrialRecord) -> dict[str, object]:
    return {key: value for key, value in trial.overrides.items() if key != "seed"}


def _setting(trials: Sequence[TrialRecord], curves: Mapping[str, Points]) -> Setting:
    """The average of `trials`, which have the same setting and different seeds."""
    scored = [trial for trial in trials if curves.get(trial.id)]
    finished = [trial for trial in scored if trial.status == "TERMINATED"]
    used = finished or [trial for trial in scored if trial.status != "ERROR"]
    lines = [_forward(curves[trial.id]) for trial in used]  # of each seed: agent-steps, scores
    start = max((steps[0] for steps, _ in lines), default=math.inf)
    stop = min((steps[-1] for steps, _ in lines), default=-math.inf)
    values, empty = _values(trials[0]), np.empty(0)
    if start > stop:  # no seed has a score, or no two at the same time
        return Setting(values, len(trials), 0, empty, empty, None, None, None)
    union = np.unique(np.concatenate([steps for steps, _ in lines]))
    grid = union[(union >= start) & (union <= stop)]
    means, margins = mean_and_margin([np.interp(grid, *line) for line in lines])
    score, margin = mean_and_margin([_average(*line, max(start, (1 - LAST) * stop), stop) for line in lines])
    margin_or_none = None if margin is None else float(margin)
    return Setting(values, len(trials), len(lines), grid, means, margins, float(score), margin_or_none)


def _forward(points: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(agent-steps, scores), with growing agent-steps: if a trial repeated some from a checkpoint, the newer scores."""
    kept: list[tuple[float, float]] = []
    for point in points:
        while kept and kept[-1][0] >= point[0]:
            kept.pop()
        kept.append(point)
    steps, scores = np.array(kept, dtype=np.float64).T
    return steps, scores


def _average(steps: NDArray[np.float64], scores: NDArray[np.float64], start: float, stop: float) -> float:
    """Mean of the line through the points from `start` to `stop`: its area (exact by trapezoids) over its length."""
    if start == stop:
        return float(np.interp(stop, steps, scores))
    inner = (steps > start) & (steps < stop)
    x = np.concatenate([[start], steps[inner], [stop]])
    return float(np.trapezoid(np.interp(x, steps, scores), x) / (stop - start))
