"""Pieces of HTML that the sections of the report consist of. All texts are escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from marl_tune.results.formatting import format_score

WINNER_ROW = ' class="winner"'


def cell(text: str, style: str = "") -> str:
    """A table's cell of text. `style` is a class of the stylesheet."""
    return f'<td class="{escape(style)}">{escape(text)}</td>' if style else f"<td>{escape(text)}</td>"


def number_cell(value: object, text: str) -> str:
    """A table's cell that is aligned and sorted as a number: `text` is shown, `value` sorts."""
    return f'<td class="number" data-value="{escape("" if value is None else str(value))}">{escape(text)}</td>'


def score_cell(score: float | None) -> str:
    """A table's cell that shows a score."""
    return number_cell(score, format_score(score))


def _head(name: str, number: bool, hint: str) -> str:
    style = ' class="number"' if number else ""
    title = f' title="{escape(hint)}"' if hint else ""
    return f"<th{style}{title}>{escape(name)}</th>"


def table(
    heads: Sequence[tuple[str, bool, str]], rows: Sequence[tuple[bool, list[str]]], sortable: bool = False
) -> str:
    """A table.

    Args:
        heads: (heading, whether the column holds numbers, hint) of each column.
        rows: (whether it is the winner's, cells) of each row.
        sortable: whether a click on a heading sorts the table.
    """
    head = "".join(_head(*words) for words in heads)
    body = "".join(f"<tr{WINNER_ROW if won else ''}>{''.join(cells)}</tr>" for won, cells in rows)
    style = ' class="sortable"' if sortable else ""
    return f'<div class="scroll"><table{style}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def wide(picture: str) -> str:
    """A picture that scrolls on a narrow screen instead of becoming smaller."""
    return f'<div class="scroll">{picture}</div>'


def folded(name: str, text: str) -> str:
    """A long text that a click opens."""
    return f"<details><summary>{name}</summary><pre>{escape(text)}</pre></details>"
