"""Pieces of HTML that the sections of the report are made of. What is given as text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from marl_tune.results.formatting import format_score

WINNER_ROW = ' class="winner"'


def cell(text: str, style: str = "") -> str:
    """A cell of text, with a class of the stylesheet."""
    return f'<td class="{escape(style)}">{escape(text)}</td>' if style else f"<td>{escape(text)}</td>"


def number_cell(value: Any, text: str | None = None) -> str:
    """A cell that is aligned and sorted as a number."""
    words = format_score(value) if text is None else text
    return f'<td class="number" data-value="{escape("" if value is None else str(value))}">{escape(words)}</td>'


def _head(name: str, number: bool, hint: str) -> str:
    style = ' class="number"' if number else ""
    title = f' title="{escape(hint)}"' if hint else ""
    return f"<th{style}{title}>{escape(name)}</th>"


def table(
    heads: Sequence[tuple[str, bool, str]], rows: Sequence[tuple[bool, list[str]]], sortable: bool = False
) -> str:
    """A table of (heading, is a number, hint) and (is the winner, cells)."""
    head = "".join(_head(*words) for words in heads)
    body = "".join(f"<tr{WINNER_ROW if won else ''}>{''.join(cells)}</tr>" for won, cells in rows)
    style = ' class="sortable"' if sortable else ""
    return f'<div class="scroll"><table{style}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def wide(picture: str) -> str:
    """A picture that is scrolled rather than shrunk on a narrow screen."""
    return f'<div class="scroll">{picture}</div>'


def folded(name: str, text: str) -> str:
    """A long text that opens on a click."""
    return f"<details><summary>{name}</summary><pre>{escape(text)}</pre></details>"
