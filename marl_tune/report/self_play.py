"""The report's section on self-play: win rates of learners against each player of the pool, and ratings over time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from marl_tune.report import charts
from marl_tune.report.data import ReportData, curves_of
from marl_tune.report.html_parts import wide
from marl_tune.results.json_records import SelfPlayEntry, SelfPlayTable
from marl_tune.results.metrics import ELO
from marl_tune.results.text_files import read_csv, read_json

CELL, ROW, LEFT, TOP = 64, 34, 150, 74  # of the heat map


def section(data: ReportData) -> str:
    """The section on the winner's trial, or else on the first one; "" for a run without self-play."""
    tables: dict[str, SelfPlayEntry] = read_json(data.folder.self_play) or {}
    if not tables:
        return ""
    trial = data.winner if data.winner is not None and data.winner in tables else next(iter(tables))
    words = (
        f"Win rates of trial {trial} at iteration {tables[trial]['iteration']}, a draw counted half, of its learners"
        " against the players of its pool; Elo beneath each, 0 being the untrained policy."
    )
    parts = ["<h2>Self-play</h2>", f"<p class='soft'>{escape(words)}</p>", heat_map(tables[trial])]
    if data.metric != ELO:  # else the learning curves above show the same
        ratings = curves_of(read_csv(data.folder.progress), ELO)
        styles = {name: "winner" if name == trial else "other" for name in ratings}
        curves = [charts.Curve(f"trial {name}", styles[name], points) for name, points in ratings.items() if points]
        parts += ["<p class='soft'>Elo over experience.</p>", wide(charts.learning_curves(curves, ELO))]
    return "".join(parts)


def heat_map(table: SelfPlayTable) -> str:
    """One row for each learner, one column for each player that learners have met. A stronger colour: more wins."""
    players, elo, rates = table["players"], table["elo"], table["win_rates"]
    rows = [number for number, player in enumerate(players) if player in _learners(table)]
    columns = [number for number in range(len(players)) if any(rates[row][number] is not None for row in rows)]
    parts = []
    for place, column in enumerate(columns):
        middle = LEFT + CELL * (place + 0.5)
        parts.append(charts.text(middle, TOP - 30, short_name(players[column]), "tick middle", players[column]))
        parts.append(charts.text(middle, TOP - 12, f"{elo[column]:.0f}", "tick middle"))
    for place, row in enumerate(rows):
        y = TOP + ROW * place
        parts.append(charts.text(LEFT - 12, y + 22, f"{players[row]}, {elo[row]:.0f}", "name end"))
        for position, column in enumerate(columns):
            parts += _cell(LEFT + CELL * position, y, rates[row][column], f"{players[row]} against {players[column]}")
    width, height = LEFT + CELL * max(1, len(columns)) + 20, TOP + ROW * len(rows) + 10
    return charts.svg(parts, height, "Win rates", width, own_size=True)


def _learners(table: SelfPlayTable) -> Sequence[str]:
    """The players that learn: they have plain names, whereas names of frozen copies hold dots."""
    return [player for player in table["players"] if "." not in player and player != "untrained"]


def short_name(player: str) -> str:
    """The iteration of a copy's name `trial.learner.iteration.digest`, which tells copies apart; other names as is."""
    parts = player.split(".")
    return str(int(parts[2])) if len(parts) > 2 else player


def _cell(x: float, y: float, rate: float | None, hint: str) -> list[str]:
    box = f'x="{x}" y="{y}" width="{CELL - 3}" height="{ROW - 3}" rx="3"'
    if rate is None:
        return [f'<rect {box} fill="var(--panel)"/>']
    title = f"<title>{escape(f'{hint}: {rate:.2f}')}</title>"
    return [
        f'<rect {box} fill="var(--winner)" fill-opacity="{0.08 + 0.62 * rate:.2f}">{title}</rect>',
        charts.text(x + CELL / 2 - 1.5, y + 21, f"{rate:.2f}", "middle"),
    ]
