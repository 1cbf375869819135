"""Selects the best policy of a sweep: the checkpoints with the best training scores are evaluated on the same unseen
seeds. Under self-play, they play against each other."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np
import yaml

from marl_tune import envs
from marl_tune.config import convert
from marl_tune.config.schema.self_play import has_opponents
from marl_tune.config.schema.sweep import SelectionConfig, SweepConfig
from marl_tune.evaluation.play import Evaluation, evaluate_checkpoint, play
from marl_tune.evaluation.statistics import bootstrap_ci, iqm, separation
from marl_tune.evaluation.tournament import describe_games, lead, play_tournament
from marl_tune.results import checkpoint_files
from marl_tune.results.json_records import (
    BaselineEntry,
    BestEntry,
    CandidateEntry,
    Difference,
    EvaluationFile,
    EvaluationNumbers,
)
from marl_tune.results.metrics import flat_metrics, iteration_of, ranking_stage
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import write_json, write_text

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


@dataclass
class Candidate:
    """A checkpoint that may be the best of the sweep.

    >>> Candidate("x_00001", Path("checkpoint_000003"), iteration=3, score=1.5).stage
    0
    """

    trial: str
    folder: Path
    iteration: int  # training iteration at which it was saved
    score: float  # search.metric when it was saved
    stage: int = 0  # stage of the curriculum in which it was saved


@dataclass
class PlayedCandidate:
    """A candidate and its evaluation.

    >>> evaluation = Evaluation([7, 8], {"a": np.array([1.0, 3.0])}, lengths=np.array([20, 20]), metrics={})
    >>> candidate = Candidate("x_00001", Path("checkpoint_000003"), iteration=3, score=1.5)
    >>> PlayedCandidate(candidate, evaluation, evaluation.scores("return_mean_agent")).scores.tolist()
    [1.0, 3.0]
    """

    candidate: Candidate
    evaluation: Evaluation
    scores: np.ndarray  # (episodes,) what it is ranked by


class WinnersLead(TypedDict):
    """How far the winner is ahead of the best candidate of another trial."""

    separated: bool
    difference_to_next: Difference | None


def candidates(trials: Sequence[Trial], metric: str, mode: str, top_k: int) -> list[Candidate]:
    """The `top_k` checkpoints of the whole sweep with the best training scores. Of equal ones, the later is better.

    Checkpoints of a later stage of a curriculum come first, because a score of an earlier stage is of an easier world.

    Args:
        trials: Tune's trials.
        metric: the score's name.
        mode: max | min.
        top_k: at least 1.
    """
    sign = 1.0 if mode == "max" else -1.0
    found: dict[tuple[str, int], Candidate] = {}
    for trial in trials:
        for saved in trial.run_metadata.checkpoint_manager.best_checkpoint_results:
            numbers, folder = flat_metrics(saved.metrics), Path(saved.checkpoint.path)
            score, stage = numbers.get(metric, math.nan), ranking_stage(numbers, metric)
            if folder.is_dir():
                one = Candidate(trial.trial_id, folder, iteration_of(saved.metrics), score, stage)
                found[one.trial, one.iteration] = one

    # A checkpoint from before the first finished episode has no score; it comes last.
    def rank(c: Candidate) -> tuple[int, float, int]:
        return -c.stage, -sign * c.score if math.isfinite(c.score) else math.inf, -c.iteration

    return sorted(found.values(), key=rank)[:top_k]


def select(sweep: SweepConfig, trials: Sequence[Trial], run: RunFolder) -> BestEntry | None:
    """Evaluates the candidates, writes best/ and returns the summary's `best`; None if there is no checkpoint."""
    rules = sweep.selection
    chosen = candidates(trials, sweep.search.metric, sweep.search.mode, rules.top_k)
    if not chosen:
        return None
    winner, numbers = (_select_by_games if has_opponents(sweep) else _select_by_scores)(sweep, chosen, run)
    overrides = next(dict(t.config) for t in trials if t.trial_id == winner.trial)
    return {
        "trial": winner.trial,
        "overrides": overrides,
        "checkpoint": run.relative(run.best_checkpoint),
        "evaluation": numbers,
    }


def _select_by_scores(
    sweep: SweepConfig, chosen: Sequence[Candidate], run: RunFolder
) -> tuple[Candidate, EvaluationNumbers]:
    """Selects the winner by scores on the same seeds and writes best/. Returns it and its numbers."""
    rules = sweep.selection
    seeds = list(range(rules.seed, rules.seed + rules.episodes))
    played = []
    for candidate in chosen:
        evaluation = evaluate_checkpoint(candidate.folder, seeds, rules.explore)
        played.append(PlayedCandidate(candidate, evaluation, evaluation.scores(sweep.search.metric)))
    played = ranked(played, rules, 1.0 if sweep.search.mode == "max" else -1.0)
    _write_best(sweep, played, run)
    return played[0].candidate, describe(played[0].evaluation, sweep.search.metric, rules)


def _select_by_games(
    sweep: SweepConfig, chosen: Sequence[Candidate], run: RunFolder
) -> tuple[Candidate, EvaluationNumbers]:
    """Selects the winner by mean results against the other candidates and writes best/. Returns it and its numbers."""
    rules, games = sweep.selection, play_tournament(sweep, [candidate.folder for candidate in chosen])
    order = sorted(range(len(chosen)), key=lambda number: -float(np.mean(games[number].results)))
    rows = [_row(chosen[number], describe_games(games[number], rules), run) for number in order]
    first = order[0]
    rival = next((number for number in order if chosen[number].trial != chosen[first].trial), None)
    ahead: WinnersLead = {"separated": False, "difference_to_next": None}
    if rival is not None:
        difference, ci = lead(games[first], games[rival], rules)
        next_one: Difference = {"trial": chosen[rival].trial, "difference": difference, "ci95": list(ci)}
        ahead = {"separated": ci[0] > 0 or ci[1] < 0, "difference_to_next": next_one}
    _keep(chosen[first], run)
    _write_evaluation(sweep, rows, ahead, None, sorted(set(games[first].seeds)), run)
    return chosen[first], describe_games(games[first], rules)


def ranked(played: Sequence[PlayedCandidate], rules: SelectionConfig, sign: float) -> list[PlayedCandidate]:
    """The candidates, best first, by interquartile mean (IQM) of their scores.

    The winner is the one with the best plain mean among those whose IQM does not differ from the best by more than
    chance: rare episodes that fail change the mean, but not the IQM.

    Args:
        played: all on the same seeds.
        rules: `confidence`, `bootstrap` and `seed` of the comparison.
        sign: 1 if more is better, -1 if less is.
    """
    order = sorted(played, key=lambda p: -sign * float(iqm(p.scores)))

    def tied(other: PlayedCandidate) -> bool:
        return not separation(
            order[0].scores, other.scores, True, rules.confidence, rules.bootstrap, rules.seed
        ).separated

    winner = max((p for p in order if tied(p)), key=lambda p: sign * float(p.scores.mean()))
    return [winner, *(p for p in order if p is not winner)]


def describe(evaluation: Evaluation, metric: str, rules: SelectionConfig) -> EvaluationNumbers:
    """An evaluation in numbers: IQM of the score and its interval; means of both returns and the world's metrics."""
    scores = evaluation.scores(metric)
    low, high = bootstrap_ci(scores, rules.confidence, rules.bootstrap, rules.seed)
    numbers: EvaluationNumbers = {
        "episodes": len(scores),
        "return_mean_agent": float(evaluation.mean_agent.mean()),
        "return_sum_team": float(evaluation.sum_team.mean()),
        "iqm": float(iqm(scores)),
        "ci95": [low, high],
        "episode_len_mean": float(evaluation.lengths.mean()),
    }
    of_world = {name: float(np.mean(values)) for name, values in sorted(evaluation.metrics.items())}
    return cast(EvaluationNumbers, {**numbers, **of_world})


def _write_best(sweep: SweepConfig, ranked: Sequence[PlayedCandidate], run: RunFolder) -> None:
    """Writes best/: the winner's checkpoint and config, and evaluation.json."""
    metric, rules, seeds = sweep.search.metric, sweep.selection, ranked[0].evaluation.seeds
    trained = _keep(ranked[0].candidate, run)
    rows = [_row(played.candidate, describe(played.evaluation, metric, rules), run) for played in ranked]
    baseline = _baseline(trained, sweep, seeds)
    _write_evaluation(sweep, rows, lead_of_winner(ranked, rules), baseline, seeds, run)


def _write_evaluation(
    sweep: SweepConfig,
    rows: list[CandidateEntry],
    ahead: WinnersLead,
    baseline: BaselineEntry | None,
    seeds: list[int],
    run: RunFolder,
) -> None:
    """Writes best/evaluation.json. `rows` are the candidates, best first."""
    record: EvaluationFile = {
        "metric": sweep.search.metric,
        "mode": sweep.search.mode,
        "confidence": sweep.selection.confidence,
        "explore": sweep.selection.explore,
        "seeds": seeds,
        "winner": rows[0],
        "candidates": rows,
        "separated": ahead["separated"],
        "difference_to_next": ahead["difference_to_next"],
        "baseline": baseline,
    }
    write_json(run.evaluation, record)


def _keep(winner: Candidate, run: RunFolder) -> SweepConfig:
    """Copies the winner into best/. Returns the settings that it was trained with."""
    shutil.rmtree(run.best, ignore_errors=True)
    shutil.copytree(winner.folder, run.best_checkpoint)
    trained = checkpoint_files.load_sweep(run.best_checkpoint)
    write_text(run.best_config, yaml.safe_dump(convert.to_dict(trained), sort_keys=False))
    return trained


def _row(candidate: Candidate, numbers: EvaluationNumbers, run: RunFolder) -> CandidateEntry:
    """A candidate's entry in evaluation.json."""
    about: CandidateEntry = {
        "trial": candidate.trial,
        "checkpoint": run.relative(candidate.folder),
        "iteration": candidate.iteration,
        "training_score": candidate.score,
    }
    return cast(CandidateEntry, {**about, **numbers})


def lead_of_winner(ranked: Sequence[PlayedCandidate], rules: SelectionConfig) -> WinnersLead:
    """Compares the winner with the best candidate of another trial. Its own other checkpoints do not count.

    Args:
        ranked: best first, all on the same seeds.
        rules: `confidence`, `bootstrap` and `seed` of the comparison.
    """
    winner = ranked[0]
    rival = next((p for p in ranked[1:] if p.candidate.trial != winner.candidate.trial), None)
    if rival is None:
        return {"separated": False, "difference_to_next": None}
    apart = separation(winner.scores, rival.scores, True, rules.confidence, rules.bootstrap, rules.seed)
    difference: Difference = {"trial": rival.candidate.trial, "difference": apart.difference, "ci95": list(apart.ci)}
    return {"separated": apart.separated, "difference_to_next": difference}


def _baseline(trained: SweepConfig, sweep: SweepConfig, seeds: Sequence[int]) -> BaselineEntry | None:
    """The numbers of the world's scripted policy on the same seeds; None if the world has none."""
    if trained.env.name not in envs.BASELINES:
        return None
    name = envs.BASELINES[trained.env.name].rsplit(":", 1)[-1]
    with envs.make_world(trained.env, len(seeds)) as world:  # without what a sharing scheme adds to it
        evaluation = play(world, envs.baseline_class(trained.env.name)(world), seeds)
    numbers = describe(evaluation, sweep.search.metric, sweep.selection)
    return cast(BaselineEntry, {"name": name, **numbers})
