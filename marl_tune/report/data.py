"""The data of the report, read from the files of a run's folder. Any file may be missing if a run was cut off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import yaml

from marl_tune.results.formatting import score_of
from marl_tune.results.json_records import CandidateEntry, EvaluationFile, Manifest, SummaryFile
from marl_tune.results.metrics import (
    AGENT_STEPS,
    ENV_STEPS,
    ITERATION,
    RETURN_MEAN_AGENT,
    STAGE,
    TIME_TOTAL_S,
    ranking_stage,
)
from marl_tune.results.records import BreakthroughRecord, LineageRecord, TrialRecord
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import read_csv, read_json

Points: TypeAlias = list[tuple[float, float]]  # (agent-steps, value) in order of time


@dataclass(frozen=True)
class Ancestor:
    """One part of the winner's past: it trained as `trial`, with `values`, from one iteration to another."""

    trial: str
    start: int  # iteration
    stop: int  # iteration
    values: dict[str, object]  # searched dotted key -> value


@dataclass
class ReportData:
    """A run, as far as its files are there."""

    folder: RunFolder
    config_text: str = ""
    config: dict[str, object] = field(default_factory=dict)
    manifest: Manifest = field(default_factory=Manifest)
    summary: SummaryFile = field(default_factory=SummaryFile)
    evaluation: EvaluationFile = field(default_factory=EvaluationFile)
    trials: list[TrialRecord] = field(default_factory=list)
    curves: dict[str, Points] = field(default_factory=dict)  # trial -> (agent-steps, score)
    stages: dict[str, Points] = field(default_factory=dict)
    # trial -> (agent-steps, stage of its curriculum); {} without a curriculum
    lineage: list[LineageRecord] = field(default_factory=list)
    breakthroughs: list[BreakthroughRecord] = field(default_factory=list)
    metric: str = RETURN_MEAN_AGENT
    mode: str = "max"

    @property
    def candidates(self) -> list[CandidateEntry]:
        """The checkpoints that were evaluated, the best first."""
        sign = -1 if self.mode == "max" else 1
        return sorted(self.evaluation.get("candidates", []), key=lambda candidate: sign * score_of(candidate))

    def judged_by(self, metric: str) -> str:
        """What the candidates are ranked by, in words. `metric` is the page's name of the search's metric."""
        if any("mean_result" in candidate for candidate in self.candidates):
            return "mean result against the other candidates (win 1, draw 0.5, loss 0)"
        return f"interquartile mean of {metric}"

    @property
    def winner(self) -> str | None:
        """The trial that won; None if no winner was selected."""
        best = self.summary.get("best") or self.evaluation.get("winner")
        return str(best["trial"]) if best else None

    @property
    def rival(self) -> CandidateEntry | None:
        """The best candidate of another trial than the winner's; None if there is none."""
        return next((candidate for candidate in self.candidates if candidate["trial"] != self.winner), None)

    @property
    def level(self) -> str:
        """The level of the intervals in words: `95 %`."""
        return f"{100 * self.evaluation.get('confidence', 0.95):g} %"

    def ranked(self) -> list[TrialRecord]:
        """The trials: the winner first, the others by stage of their curriculum and then by score. No score is last."""
        sign = -1 if self.mode == "max" else 1

        def rank(trial: TrialRecord) -> tuple[bool, int, float]:
            stage = ranking_stage({STAGE: self.last_stage(trial.id) or 0}, self.metric)
            return trial.id != self.winner, -stage, math.inf if trial.score is None else sign * trial.score

        return sorted(self.trials, key=rank)

    def last_stage(self, trial: str) -> int | None:
        """The stage of the curriculum in which a trial ended; None without a curriculum."""
        return int(self.stages[trial][-1][1]) if trial in self.stages else None

    def ancestry(self) -> list[Ancestor]:
        """The winner's past, the oldest part first. An exploit begins a new part: the past before it is the donor's."""
        by_id = {trial.id: trial for trial in self.trials}
        if self.winner not in by_id:
            return []
        parts: list[Ancestor] = []
        trial, stop, seen = str(self.winner), by_id[str(self.winner)].iterations, len(self.lineage)
        while True:
            before = [n for n in range(seen) if self.lineage[n].to == trial]
            start = self.lineage[before[-1]].step if before else 0
            parts.append(Ancestor(trial, start, stop, self._values(trial, seen)))
            if not before:
                return parts[::-1]
            seen, stop = before[-1], start
            trial = self.lineage[seen].source

    def _values(self, trial: str, seen: int) -> dict[str, object]:
        """The searched values that `trial` had after the first `seen` exploits."""
        own = next((record.overrides for record in self.trials if record.id == trial), {})
        earlier = [record for record in self.lineage[:seen] if record.to == trial]
        if earlier:
            return {**own, **earlier[-1].new}
        later = [record for record in self.lineage[seen:] if record.to == trial]
        return {**own, **later[0].old} if later else dict(own)


def load(folder: RunFolder) -> ReportData:
    """Reads the files of a run that are there."""
    data = ReportData(folder)
    if folder.config.exists():
        data.config_text = folder.config.read_text(encoding="utf-8")
        data.config = yaml.safe_load(data.config_text) or {}
    data.manifest = cast(Manifest, read_json(folder.manifest) or {})
    data.summary = cast(SummaryFile, read_json(folder.summary) or {})
    data.evaluation = cast(EvaluationFile, read_json(folder.evaluation) or {})
    search = data.config.get("search")
    searched: dict[str, str] = search if isinstance(search, dict) else {}
    data.metric = data.summary.get("metric") or searched.get("metric") or data.metric
    data.mode = data.summary.get("mode") or searched.get("mode") or data.mode
    data.lineage = folder.read_lineage()
    data.breakthroughs = folder.read_breakthroughs()
    rows = read_csv(folder.progress)
    data.curves = curves_of(rows, data.metric)
    data.stages = {trial: stages for trial, stages in curves_of(rows, STAGE).items() if stages}
    data.trials = folder.read_trials() or _trials_so_far(rows, data.metric)
    return data


def curves_of(rows: Sequence[dict[str, str]], metric: str) -> dict[str, Points]:
    """Trial -> (agent-steps, value of the metric), from the rows of progress.csv that have a value."""
    curves: dict[str, Points] = {}
    for row in rows:
        score, steps = _number(row.get(metric)), _number(row.get(AGENT_STEPS))
        points = curves.setdefault(row["trial"], [])
        if score is not None and steps is not None:
            points.append((steps, score))
    return curves


def _trials_so_far(rows: Sequence[dict[str, str]], metric: str) -> list[TrialRecord]:
    """The trials of a run that was cut off before it wrote trials.csv, from their last results."""
    newest = {row["trial"]: row for row in rows}
    return [
        TrialRecord(
            id=trial,
            status="unfinished",
            overrides={},
            score=_number(row.get(metric)),
            iterations=int(_number(row.get(ITERATION)) or 0),
            seconds=_number(row.get(TIME_TOTAL_S)) or 0.0,
            env_steps=int(_number(row.get(ENV_STEPS)) or 0),
            agent_steps=int(_number(row.get(AGENT_STEPS)) or 0),
        )
        for trial, row in newest.items()
    ]


def _number(cell: str | None) -> float | None:
    """The number in a cell; None if it is empty, no number or not finite."""
    try:
        value = float(cell or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
