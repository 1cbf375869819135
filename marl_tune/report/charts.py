"""The report's pictures: plain SVG. The classes of template.html colour them, on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeVar

from marl_tune.results.formatting import format_count, format_number

WIDTH = 1080  # units of the picture; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 12, 44  # margins around the axes
ROW = 34  # height of a row of the dot plot and of the lineage
MAX_POINTS = 400  # points of a curve; more cannot be seen
LINE_STYLES = ("winner", "c1", "c2", "c3", "c4", "c5")  # classes that have a colour; the first is the thickest
LABEL_ROW, LABEL_WIDTH = 18, 8  # least distance of two lines of labels; width of a letter, about
LONGEST_LABEL = 40  # letters of a curve's label
BAND_ROOM = 0.4  # how far bands may reach beyond the means, as a share of the means' range
T = TypeVar("T")
# What mean curves need besides the style of the page.
MEAN_STYLE = (
    "<style>.band{fill:var(--mark);fill-opacity:.15}.leader{stroke:var(--mark);stroke-width:1.2;fill:none}"
    ".leader.long{stroke-dasharray:1 5}svg .curve.dashed{stroke-width:2;stroke-dasharray:7 4}</style>"
)


@dataclass(frozen=True)
class Curve:
    """One trial's learning curve, or the mean of several."""

    label: str
    style: str  # class: winner | c1 … c5 | other
    points: Sequence[tuple[float, float]]
    # (agent-steps, score) in order of time; where agent-steps go back, the line has a gap
    band: Sequence[tuple[float, float]] = ()  # (low, high) at each of the points; empty: none
    dashed: bool = False


@dataclass(frozen=True)
class Interval:
    """One candidate of the dot plot: a score and its interval."""

    label: str
    style: str
    value: float
    low: float
    high: float
    note: str  # text at the right end


@dataclass(frozen=True)
class Copy:
    """One exploit: row `target` became a copy of row `source`."""

    step: float
    source: int
    target: int
    hint: str  # shown where the pointer rests on the arrow
    on_path: bool  # the winner comes from it


class Axis:
    """Maps values to places in a picture: `axis(value)`.

    Args:
        values: the axis holds all of them; at least one.
        start: place of the lowest value.
        end: place of the highest value.
        about: intervals between ticks, about.
        round_ends: whether the axis ends at ticks.
    """

    def __init__(
        self, values: Sequence[float], start: float, end: float, about: int = 6, round_ends: bool = True
    ) -> None:
        low, high = min(values), max(values)
        if high - low <= 1e-9 * max(abs(low), abs(high)):  # also where two curves differ by rounding only
            pad = abs(low) * 0.1 or 1.0
            low, high = low - pad, high + pad
        self.ticks = ticks(low, high, about)
        self.low, self.high = min(low, self.ticks[0]), max(high, self.ticks[-1])
        if not round_ends:
            self.low, self.high = low - 0.06 * (high - low), high + 0.06 * (high - low)
        self._start, self._end = start, end
        self._decimals = max(0, -math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9))

    def __call__(self, value: float) -> float:
        return self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start)

    def label(self, tick: float) -> str:
        """The tick's number. All ticks of an axis have the same decimals."""
        return f"{tick:,.{self._decimals}f}" if self._decimals < 5 else format_number(tick)


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers that cover `low` to `high`; two neighbours are 1, 2 or 5 times a power of ten apart."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) if step > 1e-9 else number * step for number in range(first, last + 1)]


def learning_curves(curves: Sequence[Curve], y_label: str) -> str:
    """Score over agent-steps, one line for each trial. The first of `curves` are drawn on top."""
    height = 420
    points = [point for curve in curves for point in curve.points]
    if not points:
        return ""
    x = Axis([0.0, *(px for px, _ in points)], LEFT, WIDTH - RIGHT)
    y = Axis([py for _, py in points], height - BOTTOM, TOP)
    parts = [*_grid(y), *x_axis(x, height, "agent-steps of the trial")]
    for curve in reversed(curves):
        path = " ".join(_path(_thinned(curve.points), x, y))
        parts.append(f'<path class="curve {curve.style}" d="{path}"><title>{escape(curve.label)}</title></path>')
        if len(curve.points) == 1 or curve.style != "other":
            end_x, end_y = curve.points[-1]
            parts.append(f'<circle class="dot {curve.style}" cx="{x(end_x):.1f}" cy="{y(end_y):.1f}" r="3.5"/>')
    return svg(parts, height, f"Learning curves: {y_label}")


def mean_curves(curves: Sequence[Curve], y_label: str) -> str:
    """Means over agent-steps with their bands, each labelled at its end. The first of `curves` are drawn on top.

    A band that is much wider than the range of the means (with two seeds it can be) is cut: else all lines would look
    the same.
    """
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return ""
    height = 440
    named = [curve for curve in curves if curve.style != "other"]
    letters = max((len(_shortened(curve.label)) for curve in named), default=0)
    right = WIDTH - RIGHT - 40 - LABEL_WIDTH * letters
    means = [mean for curve in curves for _, mean in curve.points]
    room = BAND_ROOM * (max(means) - min(means)) or abs(max(means)) or 1.0
    floor, ceiling = min(means) - room, max(means) + room
    edges = [edge for curve in curves for pair in curve.band for edge in pair]
    x = Axis([0.0, *(px for curve in curves for px, _ in curve.points)], LEFT, right)
    y = Axis([*means, *(min(max(edge, floor), ceiling) for edge in edges)], height - BOTTOM, TOP, about=9)
    parts = [MEAN_STYLE, *_grid(y, right), *x_axis(x, height, "agent-steps of each trial")]
    if edges and (min(edges) < floor or max(edges) > ceiling):
        parts.append(text(right, height - 4, "bands reach beyond the picture", "tick end"))
    parts += [_band(curve, x, y) for curve in reversed(curves) if curve.band]
    for curve in reversed(curves):
        style = f"curve {curve.style}{' dashed' if curve.dashed else ''}"
        path = " ".join(_path(_thinned(curve.points), x, y))
        parts.append(f'<path class="{style}" d="{path}"><title>{escape(curve.label)}</title></path>')
    return svg([*parts, *_end_labels(named, x, y, height)], height, f"Mean learning curves: {y_label}")


def _band(curve: Curve, x: Axis, y: Axis) -> str:
    """The area between the lower and the upper edge, cut at the ends of the axis."""
    rows = _thinned([(step, low, high) for (step, _), (low, high) in zip(curve.points, curve.band, strict=True)])
    upper = [(step, min(max(high, y.low), y.high)) for step, _, high in rows]
    lower = [(step, min(max(low, y.low), y.high)) for step, low, _ in reversed(rows)]
    corners = " ".join(f"{x(step):.1f} {y(edge):.1f}" for step, edge in [*upper, *lower])
    return f'<path class="band {curve.style}" d="M{corners}Z"/>'


def _end_labels(curves: Sequence[Curve], x: Axis, y: Axis, height: float) -> list[str]:
    """For each curve: a dot at its end, a label beside the picture, and a line that joins them."""
    ends = [(x(curve.points[-1][0]), y(curve.points[-1][1])) for curve in curves]
    places = spread([end for _, end in ends], LABEL_ROW, TOP + 8, height - BOTTOM)
    at = x(x.high) + 34
    parts = []
    for curve, (end_x, end_y), place in zip(curves, ends, places, strict=True):
        far = " long" if end_x < x(x.high) - 1 else ""  # dotted, so that it does not look like the curve
        line = f"M{end_x:.1f} {end_y:.1f} H{at - 26:.1f} L{at - 6:.1f} {place:.1f}"
        parts += [
            f'<path class="leader {curve.style}{far}" d="{line}"/>',
            f'<circle class="dot {curve.style}" cx="{end_x:.1f}" cy="{end_y:.1f}" r="4"/>',
            text(at, place + 5, _shortened(curve.label), "name" if curve.dashed else f"name {curve.style}"),
        ]
    return parts


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places from `low` to `high` near the `wanted` ones and in their order, at least `gap` apart; closer together if
    so many do not fit."""
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    down = _pushed([wanted[number] for number in order], gap, low, high)
    up = [-place for place in _pushed([-wanted[number] for number in reversed(order)], gap, -high, -low)][::-1]
    places = [0.0] * len(wanted)
    for number, one, other in zip(order, down, up, strict=True):
        places[number] = (one + other) / 2  # so places are moved up as much as down
    return places


def _pushed(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Sorted places, each at least `gap` above the one before it; moved back if the last would be above `high`."""
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + gap if places else low))
    for number in range(len(places) - 1, -1, -1):
        places[number] = min(places[number], high - gap * (len(places) - 1 - number))
    return places


def _shortened(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"


def _thinned(points: Sequence[T]) -> list[T]:
    """About MAX_POINTS of `points` at most, evenly spread, with the last one."""
    stride = math.ceil(len(points) / MAX_POINTS)
    return list(points)[::-1][:: max(1, stride)][::-1]


def dot_plot(intervals: Sequence[Interval], x_label: str) -> str:
    """A dot and an interval for each candidate, on one axis."""
    height = TOP + ROW * len(intervals) + BOTTOM
    left, right = (
        max(200, 24 + LABEL_WIDTH * max(len(words) for words in side))
        for side in ([i.label for i in intervals], [i.note for i in intervals])
    )
    x = Axis([v for i in intervals for v in (i.low, i.high, i.value)], left, WIDTH - right)
    bottom = height - BOTTOM
    parts = []
    for tick in x.ticks:
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(text(x(tick), bottom + 18, x.label(tick), "tick middle"))
    parts.append(text((left + WIDTH - right) / 2, height - 6, x_label, "label middle"))
    for number, interval in enumerate(intervals):
        y = TOP + ROW * (number + 0.5)
        hint = escape(f"{interval.label}: {interval.note}")
        parts += [
            text(left - 16, y + 5, interval.label, f"name end {interval.style}"),
            f'<g class="{interval.style}"><title>{hint}</title>',
            f'<line class="whisker" x1="{x(interval.low):.1f}" x2="{x(interval.high):.1f}" y1="{y}" y2="{y}"/>',
            f'<circle class="point" cx="{x(interval.value):.1f}" cy="{y}" r="6"/></g>',
            text(WIDTH - right + 16, y + 5, interval.note, "tick"),
        ]
    return svg(parts, height, "Evaluation of the candidates")


def lineage(rows: Sequence[tuple[str, float]], copies: Sequence[Copy], path: Sequence[tuple[int, float, float]]) -> str:
    """Who copied whom: one line for each trial over the iterations, one arrow for each exploit.

    Args:
        rows: (label, last iteration) of each trial.
        copies: the exploits.
        path: (row, from iteration, to iteration) of the winner's past, drawn thick.
    """
    row_height = ROW if len(rows) <= 12 else 20
    height = TOP + row_height * len(rows) + BOTTOM
    left = 110
    x = Axis([0.0, *(copy.step for copy in copies), *(end for _, end in rows)], left, WIDTH - RIGHT)

    def y(row: int) -> float:
        return TOP + row_height * (row + 0.5)

    parts = [*x_axis(x, height, "iteration")]
    for number, (label, end) in enumerate(rows):
        parts.append(text(left - 16, y(number) + 5, label, "name end"))
        parts.append(f'<line class="life" x1="{x(0)}" x2="{x(end):.1f}" y1="{y(number)}" y2="{y(number)}"/>')
    for row, start, stop in path:
        parts.append(f'<line class="life winner" x1="{x(start):.1f}" x2="{x(stop):.1f}" y1="{y(row)}" y2="{y(row)}"/>')
    beside: dict[float, int] = {}  # step -> arrows drawn there, each a little to the left of the one before
    for copy in sorted(copies, key=lambda copy: not copy.on_path):
        style = "winner" if copy.on_path else "other"
        down = 1 if copy.target > copy.source else -1
        at, tip = x(copy.step) - 7 * beside.setdefault(copy.step, 0), y(copy.target) - 3 * down
        beside[copy.step] += 1
        parts += [
            f'<g class="{style}"><title>{escape(copy.hint)}</title>',
            f'<line class="copy" x1="{at:.1f}" x2="{at:.1f}" y1="{y(copy.source)}" y2="{tip - 6 * down}"/>',
            f'<path class="tip" d="M{at:.1f} {tip} l-4.5 {-9 * down} h9 z"/>',
            f'<circle class="tip" cx="{at:.1f}" cy="{y(copy.source)}" r="3.5"/></g>',
        ]
    return svg(parts, height, "Lineage of the population")


def _path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> list[str]:
    commands = []
    previous = math.inf
    for px, py in points:
        commands.append(f"{'M' if px <= previous else 'L'}{x(px):.1f} {y(py):.1f}")
        previous = px
    return commands


def scatter(points: Sequence[tuple[float, float, str, str]], x_label: str, y_label: str) -> str:
    """One dot for each trial. The x axis is logarithmic if the values span a factor of ten or more.

    Args:
        points: (value of a setting, score, class, hint) of each trial; at least one.
        x_label: name of the setting.
        y_label: name of the score.
    """
    width, height, left, bottom = 340, 230, 52, 40
    xs = [point[0] for point in points]
    logarithmic = min(xs) > 0 and max(xs) / min(xs) >= 10
    place = math.log10 if logarithmic else float
    x = Axis([place(value) for value in xs], left, width - 14, about=3, round_ends=not logarithmic)
    y = Axis([point[1] for point in points], height - bottom, 10, about=3)
    parts = []
    for tick in y.ticks:
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 14}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(text(left - 8, y(tick) + 4, y.label(tick), "tick end"))
    marks = _powers(x) if logarithmic else [(x(tick), x.label(tick)) for tick in x.ticks]
    parts += [text(at, height - bottom + 18, label, "tick middle") for at, label in marks]
    parts.append(text((left + width) / 2, height - 4, x_label, "label middle"))
    for value, score, style, hint in points:
        place_x, place_y = x(place(value)), y(score)
        circle = f'<circle class="dot {style}" cx="{place_x:.1f}" cy="{place_y:.1f}" r="4.5">'
        parts.append(f"{circle}<title>{escape(hint)}</title></circle>")
    return svg(parts, height, f"{y_label} against {x_label}", width)


def _powers(x: Axis) -> list[tuple[float, str]]:
    """(place, label) of the powers of ten on a logarithmic axis; with 3 times each, if the axis is short."""
    exponents = range(math.floor(x.low), math.ceil(x.high) + 1)
    factors = (1, 3) if x.high - x.low < 2.5 else (1,)
    values = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    return [(x(math.log10(v)), format_number(v)) for v in values if x.low - 1e-9 <= math.log10(v) <= x.high + 1e-9]


def _grid(y: Axis, right: float = WIDTH - RIGHT) -> list[str]:
    parts = []
    for tick in y.ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(text(LEFT - 10, y(tick) + 5, y.label(tick), "tick end"))
    return parts


def x_axis(x: Axis, height: float, label: str) -> list[str]:
    """Numbers and name of the horizontal axis, at the bottom of a picture of this height."""
    parts = [text(x(tick), height - BOTTOM + 20, format_count(tick), "tick middle") for tick in x.ticks]
    return [*parts, text((x(x.low) + x(x.high)) / 2, height - 4, label, "label middle")]


def text(x: float, y: float, words: str, style: str, hint: str = "") -> str:
    """Words at a place. `hint` is shown where the pointer rests on them."""
    title = f"<title>{escape(hint)}</title>" if hint else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(words)}{title}</text>'


def svg(parts: Sequence[str], height: float, label: str, width: float = WIDTH, own_size: bool = False) -> str:
    """A picture made of `parts`, as wide as the page; with `own_size`, at most `width` pixels wide."""
    style = f' style="max-width:{width}px"' if own_size else ""
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}"{style}>'
    return "\n".join([head, *parts, "</svg>"])
