"""The report's picture of a curriculum: the stage of each trial over time, below the learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from marl_tune.report.charts import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Axis, Curve, svg, text, x_axis

STEP = 30  # height of a stage
APART = 3  # units between the lines of two trials in one stage


def stage_lines(curves: Sequence[Curve], scores: Sequence[Curve]) -> str:
    """Stage over agent-steps, one stepped line for each trial. The first of `curves` are drawn on top.

    Args:
        curves: points are (agent-steps, the stage that was sampled until then).
        scores: the learning curves above; this picture has the same horizontal axis.
    """
    if not curves:
        return ""
    last = int(max(stage for curve in curves for _, stage in curve.points))
    height = TOP + STEP * (last + 1) + BOTTOM
    x = Axis([0.0, *(steps for curve in (*scores, *curves) for steps, _ in curve.points)], LEFT, WIDTH - RIGHT)
    parts = x_axis(x, height, "agent-steps of the trial")
    for stage in range(last + 1):
        at = _level(stage, last)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(text(LEFT - 10, at + 5, f"stage {stage}", "tick end"))
    coloured = [curve for curve in curves if curve.style != "other"]
    for curve in reversed(curves):
        shift = APART * (coloured.index(curve) - (len(coloured) - 1) / 2) if curve in coloured else 0.0
        path = " ".join(_steps(curve.points, x, last, shift))
        parts.append(f'<path class="curve {curve.style}" d="{path}"><title>{escape(curve.label)}</title></path>')
    return svg(parts, height, "Stages of the curriculum")


def _level(stage: float, last: int) -> float:
    """The height at which a stage is drawn; the last stage is at the top."""
    return TOP + STEP * (last - stage + 0.5)


def _steps(points: Sequence[tuple[float, float]], x: Axis, last: int, shift: float) -> list[str]:
    """A path that holds each stage until its point. Where agent-steps go back (after an exploit), it has a gap."""
    start = points[0][0]
    commands = [f"M{x(0.0):.1f} {_level(points[0][1], last) + shift:.1f} H{x(start):.1f}"]
    for (before, old), (steps, stage) in pairwise(points):
        at = _level(stage, last) + shift
        if steps <= before:
            commands.append(f"M{x(steps):.1f} {at:.1f}")
        elif stage != old:
            commands.append(f"V{at:.1f} H{x(steps):.1f}")
        else:
            commands.append(f"H{x(steps):.1f}")
    return commands
