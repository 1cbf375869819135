"""report.html: one file that shows what a sweep found, and how certain that is.

`python -m marl_tune.report PATH` writes it again. It reads only the files of the run's folder. Any of them may be
missing if the run was cut off.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TypeGuard

from marl_tune.report import charts
from marl_tune.report.comparison import Setting, caveats, compare, mean_curves, note
from marl_tune.report.curriculum import stage_lines
from marl_tune.report.data import ReportData, load
from marl_tune.report.html_parts import cell, folded, number_cell, score_cell, table, wide
from marl_tune.report.self_play import section as self_play_section
from marl_tune.results.formatting import (
    format_count,
    format_duration,
    format_score,
    format_value,
    score_of,
    short_ids,
    short_keys,
)
from marl_tune.results.json_records import CandidateEntry, EvaluationNumbers
from marl_tune.results.metrics import RETURN_MEAN_AGENT, RETURN_SUM_TEAM
from marl_tune.results.records import TrialRecord
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import as_cell, write_text

TEMPLATE = Path(__file__).with_name("template.html")
SCALES = {RETURN_MEAN_AGENT: " (mean over agents)", RETURN_SUM_TEAM: " (sum over agents)"}
BREAKTHROUGHS = 10  # greatest ones that are shown
COLOURED = 5  # trials, besides the winner, that have a colour of their own
SWEEP_WORDS = {"failed": "finished, with failures"}  # status in summary.json -> better words
GROUPS = ("env", "module", "sharing", "algorithm", "search")
STATUS_WORDS = {  # Tune's word -> ours, for a run that has ended
    "TERMINATED": "finished",
    "ERROR": "failed",
    "RUNNING": "cut off",
    "PAUSED": "cut off",
    "PENDING": "not run",
}


def write_report(folder: RunFolder) -> Path:
    """Writes the report of the run in `folder`; returns its path."""
    write_text(folder.report, render(load(folder)))
    return folder.report


def render(data: ReportData) -> str:
    """The whole page."""
    page = _Page(data)
    sections = [
        page.head(),
        page.winner(),
        page.evaluation(),
        page.compared(),
        page.curves(),
        self_play_section(data),
        page.breakthroughs(),
        page.trials(),
        page.settings(),
        page.lineage(),
        page.origin(),
    ]
    template = TEMPLATE.read_text(encoding="utf-8")
    title = escape(f"{data.folder.title} · marl_tune")
    return template.replace("{{title}}", title).replace("{{body}}", "\n".join(filter(None, sections)))


class _Page:
    """The sections of the page, each as HTML; "" if there is nothing to show."""

    def __init__(self, data: ReportData) -> None:
        self._data = data
        self._ranked = data.ranked()
        self._ids = short_ids([trial.id for trial in data.trials] + list(data.curves))
        keys = dict.fromkeys(key for trial in data.trials for key in trial.overrides)
        self._keys = short_keys(list(keys))
        self._metric = f"{data.metric}{SCALES.get(data.metric, '')}"
        played = [candidate["trial"] for candidate in data.candidates]
        best = dict.fromkeys([*played, *(trial.id for trial in self._ranked)])
        if data.winner is not None:
            best.pop(data.winner, None)
        self._coloured = list(best)[:COLOURED]  # trials that have a colour, besides the winner

    def head(self) -> str:
        """The head of the page: what ran, and how it ended."""
        data, config = self._data, self._data.config
        status = data.summary.get("status", "not finished")
        parts = [f"{group} {_name(config.get(group))}" for group in GROUPS if _name(config.get(group))]
        failed = sum(trial.status == "ERROR" for trial in data.trials)
        facts = [
            (str(len(data.trials)) + (f", {failed} failed" if failed else ""), "trials"),
            (format_count(sum(trial.agent_steps for trial in data.trials)), "agent-steps"),
            (format_duration(data.summary.get("wall_time_s")), "wall time"),
            (data.manifest.get("started", "-")[:16].replace("T", " "), "started"),
        ]
        items = "".join(f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>" for value, name in facts)
        chip = f'<span class="chip {escape(status)}">{escape(SWEEP_WORDS.get(status, status))}</span>'
        return (
            f"<h1>{escape(data.folder.path.parent.name)}{chip}</h1>"
            f'<p class="lead">{escape(" · ".join(parts))}</p><ul class="facts">{items}</ul>'
        )

    def winner(self) -> str:
        """The winner, how certain that is, and how to use it."""
        data = self._data
        if data.winner is None:
            words = "No trial was selected: " + (
                "none left a checkpoint that could be evaluated." if data.summary else "the run has not finished."
            )
            return f'<section class="winner-card"><h2>No winner</h2><p>{words}</p></section>'
        best = data.summary.get("best")
        overrides = (best["overrides"] if best else None) or self._record(data.winner).overrides
        words = " ".join(f"{key}={as_cell(value)}" for key, value in overrides.items())
        settings = f"<p>Its settings:</p><pre class='wrap'>{escape(words)}</pre>" if words else ""
        place = f"{data.config.get('results_dir', 'results')}/{data.folder.title}"
        return (
            f'<section class="winner-card"><h2>Trial {escape(self._id(data.winner))} won</h2>'
            f"<p>{self._verdict()}</p>{settings}"
            f"<p>Play it again:</p><pre>python -m marl_tune.evaluate {escape(place)} --episodes 100</pre></section>"
        )

    def _verdict(self) -> str:
        """The sentences on the winner's score, and on whether chance can explain its lead."""
        data = self._data
        winner = data.evaluation.get("winner")
        if not winner:
            return "It had the best training score; it was not evaluated again."
        score = (
            f"On {winner['episodes']} unseen episodes it scored <b>{format_score(score_of(winner))}</b>, the"
            f" {escape(data.judged_by(self._metric))}, with a {data.level} interval of {_interval(winner)}."
        )
        baseline = data.evaluation.get("baseline")
        if baseline:
            score += (
                f" The scripted {escape(baseline['name'])} has {format_score(score_of(baseline))} on the same episodes."
            )
        if data.rival is None:
            return f"{score} No other trial was there to compare it with."
        rival = f"trial {escape(self._id(data.rival['trial']))}, which scored {format_score(score_of(data.rival))}"
        if data.evaluation.get("separated"):
            return f"{score} Its lead over the next, {rival}, is larger than chance explains."
        return (
            f"{score} <b>Its lead over the next is not larger than chance explains</b>: {rival}"
            f" ({_interval(data.rival)}), may be as good."
        )

    def evaluation(self) -> str:
        """The scores of the candidates on unseen episodes."""
        data, candidates = self._data, self._data.candidates
        if not candidates:
            return ""
        winner = data.evaluation.get("winner")
        intervals = []
        for candidate in candidates:
            style = self._style(candidate["trial"])
            if style == "winner" and not (winner and _same(candidate, winner)):
                style = "other"  # another checkpoint of the trial that won
            label = f"{self._id(candidate['trial'])}, iteration {candidate['iteration']}"
            note = f"{format_score(score_of(candidate))} [{_interval(candidate)}]"
            low, high = candidate["ci95"]
            intervals.append(charts.Interval(label, style, score_of(candidate), low, high, note))
        baseline = data.evaluation.get("baseline")
        if baseline:
            note = f"{format_score(score_of(baseline))} [{_interval(baseline)}]"
            low, high = baseline["ci95"]
            label = f"{baseline['name']}, scripted"
            intervals.append(charts.Interval(label, "scripted", baseline["iqm"], low, high, note))
        plot = charts.dot_plot(intervals, f"{data.judged_by(self._metric)}, and {data.level} interval")
        how = "against each other" if "mean_result" in candidates[0] else "on the same unseen seeds"
        words = f"The best checkpoints of the sweep played again, {candidates[0]['episodes']} episodes each, {how}."
        return f"<h2>Evaluation</h2><p class='soft'>{words}</p>{wide(plot)}"

    def compared(self) -> str:
        """The settings averaged over seeds, if there are trials that differ only in their seed."""
        settings = compare(self._data)
        if not settings:
            return ""
        words = f"<p class='soft'>{escape(self._metric)} in training, averaged over seeds. {note(settings)}</p>"
        picture = charts.mean_curves(mean_curves(settings, self._keys), self._data.metric)
        keys = list(dict.fromkeys(key for setting in settings for key in setting.values))
        numeric = {key: all(_is_number(setting.values.get(key, 0)) for setting in settings) for key in keys}
        heads = [(self._keys[key], numeric[key], key) for key in keys] or [("setting", False, "")]
        heads += [("seeds", True, "averaged"), ("agent-steps", True, "that all seeds reached")]
        heads += [("final score", True, self._data.metric), ("95 % interval", True, ""), ("to the best", False, "")]
        rows = []
        for setting in settings:
            values = [(setting.values.get(key), numeric[key]) for key in keys]
            cells = [number_cell(v, format_value(v)) if number else cell(format_value(v)) for v, number in values]
            rows.append((setting is settings[0], [*(cells or [cell("all trials")]), *_ending(setting, settings[0])]))
        rows_table = table(heads, rows, sortable=True)
        return f"<h2>Compared</h2>{words}{wide(picture)}{rows_table}<p class='soft'>{caveats(settings)}</p>"

    def curves(self) -> str:
        """Score over experience, one line for each trial."""
        data = self._data
        first = [data.winner, *self._coloured]
        order = [trial for trial in first if trial is not None]
        order += [trial for trial in data.curves if trial not in order]
        shown = {trial: (f"trial {self._id(trial)}", self._style(trial)) for trial in order if data.curves.get(trial)}
        curves = [charts.Curve(*named, data.curves[trial]) for trial, named in shown.items()]
        stages = [charts.Curve(*named, data.stages[trial]) for trial, named in shown.items() if trial in data.stages]
        head = f"<h2>Learning curves</h2><p class='soft'>{escape(self._metric)} in training"
        if not curves:
            return f"{head}: no result has it yet.</p>"
        named = [(curve.style, curve.label) for curve in curves if curve.style != "other"]
        if len(named) < len(curves):
            named.append(("other", f"{len(curves) - len(named)} more"))
        legend = "".join(f'<li class="{style}"><i></i>{escape(label)}</li>' for style, label in named)
        picture = charts.learning_curves(curves, data.metric) + stage_lines(stages, curves)
        below = "; below, the stage of the curriculum" if stages else ""
        return f'{head}{below}.</p><ul class="legend">{legend}</ul>{wide(picture)}'

    def breakthroughs(self) -> str:
        """The greatest rises of a return, and how many there were."""
        found = self._data.breakthroughs
        if not found:
            return ""
        greatest = sorted(found, key=lambda one: -one.deviations)[:BREAKTHROUGHS]
        heads = [("trial", False, ""), ("iteration", True, ""), ("whose return", False, ""), ("before", True, "")]
        heads += [("after", True, ""), ("deviations", True, "the rise, in standard deviations of such a difference")]
        rows = []
        for one in greatest:
            cells = [cell(self._id(one.trial)), number_cell(one.iteration, f"{one.iteration:,}"), cell(one.who)]
            cells += [score_cell(value) for value in (one.baseline, one.level, one.deviations)]
            rows.append((one.trial == self._data.winner, cells))
        many = f"{len(found):,} in all" + (f", the {len(rows)} greatest here" if len(rows) < len(found) else "")
        note = f"Jumps of the recent mean return that chance does not explain: {many}."
        return f"<h2>Breakthroughs</h2><p class='soft'>{note}</p>{table(heads, rows, sortable=True)}"

    def trials(self) -> str:
        """The table of all trials."""
        if not self._ranked:
            return "<h2>Trials</h2><p class='soft'>No trial has reported yet.</p>"
        errors = any(trial.error for trial in self._ranked)
        numeric = {key: all(_is_number(t.overrides.get(key, 0)) for t in self._ranked) for key in self._keys}
        heads = [("trial", False, ""), ("status", False, ""), ("score", True, self._data.metric)]
        heads += [(name, numeric[key], key) for key, name in self._keys.items()]
        heads += [("stage", True, "of the curriculum, in which the trial ended")] if self._data.stages else []
        heads += [("iterations", True, ""), ("agent-steps", True, ""), ("time", True, "of training")]
        heads += [("error", False, "")] if errors else []
        rows = []
        for trial in self._ranked:
            cells = [cell(self._id(trial.id)), self._status(trial), score_cell(trial.score)]
            for key in self._keys:
                value = trial.overrides.get(key)
                cells.append(number_cell(value, format_value(value)) if numeric[key] else cell(format_value(value)))
            stage = self._data.last_stage(trial.id)
            cells += [number_cell(stage, "-" if stage is None else str(stage))] if self._data.stages else []
            cells.append(number_cell(trial.iterations, f"{trial.iterations:,}"))
            cells.append(number_cell(trial.agent_steps, f"{trial.agent_steps:,}"))
            cells.append(number_cell(trial.seconds, format_duration(trial.seconds)))
            cells += [cell(trial.error or "", "error")] if errors else []
            rows.append((trial.id == self._data.winner, cells))
        return f"<h2>Trials</h2>{table(heads, rows, sortable=True)}"

    def settings(self) -> str:
        """Score against each searched setting that is a number."""
        pictures = []
        for key in self._keys:
            points = [
                (float(value), trial.score, self._style(trial.id), f"trial {self._id(trial.id)}")
                for trial in self._ranked
                if trial.score is not None and _is_number(value := trial.overrides.get(key))
            ]
            points.sort(key=lambda point: (point[2] != "other", point[2] == "winner"))  # drawn last, on top
            if key != "seed" and len({point[0] for point in points}) > 1:
                pictures.append(f"<div>{charts.scatter(points, key, self._data.metric)}</div>")
        if not pictures:
            return ""
        note = f"{escape(self._data.metric)} of the last result against each searched number, one dot for each trial."
        return f"<h2>Settings</h2><p class='soft'>{note}</p><div class='grid-of-charts'>{''.join(pictures)}</div>"

    def lineage(self) -> str:
        """Who copied whom, and how the winner's settings changed over time."""
        data = self._data
        if not data.lineage:
            return ""
        rows = sorted({*(record.to for record in data.lineage), *(record.source for record in data.lineage)})
        past = data.ancestry() if data.winner in rows else []
        joints = {(part.trial, part.start) for part in past}
        copies = [
            charts.Copy(
                record.step,
                rows.index(record.source),
                rows.index(record.to),
                f"iteration {record.step}: {self._id(record.to)} copies {self._id(record.source)}",
                (record.to, record.step) in joints,
            )
            for record in data.lineage
        ]
        path = [(rows.index(part.trial), part.start, part.stop) for part in past]
        picture = charts.lineage([(self._id(row), self._record(row).iterations) for row in rows], copies, path)
        keys = list(dict.fromkeys(key for part in past for key in part.values))
        names = short_keys(keys)
        heads = [("iterations", False, ""), ("as trial", False, ""), *((names[key], True, key) for key in keys)]
        parts = []
        for part in past:
            values = [number_cell(part.values.get(key), format_value(part.values.get(key))) for key in keys]
            parts.append((False, [cell(f"{part.start} to {part.stop}"), cell(self._id(part.trial)), *values]))
        schedule = f"<p>The winner's settings over time:</p>{table(heads, parts)}" if past else ""
        note = "Each arrow: a trial was overwritten with a copy of a better one. The winner's past is marked."
        return f"<h2>Lineage</h2><p class='soft'>{note}</p>{wide(picture)}{schedule}"

    def origin(self) -> str:
        """What is needed to repeat the run."""
        data, manifest = self._data, self._data.manifest
        git, cpu = manifest.get("git"), manifest.get("cpu")
        code = ""
        if git:
            code = (git["commit"] or "no commit") + (", with uncommitted changes" if git["dirty"] else "")
        facts = {
            "Command": manifest.get("command"),
            "Code": code,
            "Seeds": ", ".join(f"{name} {seed}" for name, seed in (manifest.get("seeds") or {}).items()),
            "Machine": f"{cpu['model']}, {cpu['cores']} cores" if cpu else "",
            "GPUs": ", ".join(manifest.get("gpus") or []),
            "Packages": ", ".join(f"{name} {version}" for name, version in (manifest.get("packages") or {}).items()),
        }
        lines = "".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items() if value)
        blocks = [f"<h2>Origin</h2><dl>{lines}</dl>"]
        if data.config_text:
            blocks.append(folded("Configuration", data.config_text))
        if manifest:
            blocks.append(folded("Manifest", json.dumps(manifest, indent=2, ensure_ascii=False)))
        return "".join(blocks)

    def _id(self, trial: str) -> str:
        return self._ids.get(trial, trial)

    def _record(self, trial: str) -> TrialRecord:
        return next((t for t in self._data.trials if t.id == trial), TrialRecord(trial, "", {}))

    def _style(self, trial: str) -> str:
        """The class that colours a trial. The winner, the other candidates and the next best trials have a colour."""
        if trial == self._data.winner:
            return "winner"
        return f"c{self._coloured.index(trial) + 1}" if trial in self._coloured else "other"

    def _status(self, trial: TrialRecord) -> str:
        return cell(STATUS_WORDS.get(trial.status, trial.status), f"status-{trial.status}")


def _name(part: object) -> str:
    """The `name` of a group of the config; "" if there is none."""
    return str(part.get("name", "")) if isinstance(part, dict) else ""


def _same(first: CandidateEntry, second: CandidateEntry) -> bool:
    """Whether both are the same checkpoint."""
    return all(first.get(key) == second.get(key) for key in ("trial", "checkpoint", "iteration"))


def _interval(candidate: EvaluationNumbers) -> str:
    low, high = candidate["ci95"]
    return f"{format_score(low)} to {format_score(high)}"


def _ending(setting: Setting, best: Setting) -> list[str]:
    """The last cells of a setting's row: seeds, agent-steps, final score, its interval, comparison to the best's."""
    seeds = str(setting.seeds) if setting.seeds == setting.tried else f"{setting.seeds} of {setting.tried}"
    steps = int(setting.steps[-1]) if setting.steps.size else None
    low, high = setting.interval or (None, None)
    return [
        number_cell(setting.seeds, seeds),
        number_cell(steps, format_count(steps)),
        score_cell(setting.score),
        number_cell(low, "-" if low is None else f"{format_score(low)} to {format_score(high)}"),
        cell(setting.against(best)),
    ]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
