"""The pictures of the report."""

import re

from marl_tune.report.charts import WIDTH, Interval, dot_plot

LETTER = 7.0  # width of a letter of the notes, in the picture's units


def test_long_notes_and_labels_of_the_dot_plot_are_not_cut() -> None:
    label, note = "a1b2c_00003, iteration 100000", "-1,234.5 [-1,234.5 to -1,234.5]"
    picture = dot_plot([Interval(label, "winner", 0.0, -1.0, 1.0, note)], "score")
    start = re.search(rf'<text x="([\d.]+)"[^>]*>{re.escape(note)}', picture)
    end = re.search(rf'<text x="([\d.]+)"[^>]*>{re.escape(label)}', picture)
    assert start is not None
    assert end is not None
    assert float(start[1]) + LETTER * len(note) <= WIDTH
    assert float(end[1]) - LETTER * len(label) >= 0
