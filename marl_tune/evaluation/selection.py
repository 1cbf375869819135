"""Which policy of the sweep is best: the most promising checkpoints play again, greedily, on the same unseen seeds;
under self-play against each other."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from marl_tune.results.files import write_json, write_text
from marl_tune.results.metrics import flat_metrics, ranking_stage
from marl_tune.results.run_folder import RunFolder


@dataclass
class Candidate:
    """A checkpoint that may be the best of the sweep."""

    trial: str
    folder: Path
    iteration: int
    score: float  # search.metric when it was saved: why it is a candidate
    stage: int = 0  # of the curriculum that the score is of


@dataclass
class Played:
    """A candidate and how it played."""

    candidate: Candidate
    evaluation: Evaluation
    scores: np.ndarray  # (episodes,) what it is ranked by


def candidates(trials: Sequence[Any], metric: str, mode: str, top_k: int) -> list[Candidate]:
    """The `top_k` checkpoints of the whole sweep with the best training scores; ties go to the later one.

    Those of a later stage of a curriculum come first: a score of an earlier one is of an easier world.

    Args:
        trials: Tune's trials.
    """
    sign = 1.0 if mode == "max" else -1.0
    found: dict[tuple[str, int], Candidate] = {}
    for trial in trials:
        for saved in trial.run_metadata.checkpoint_manager.best_checkpoint_results:
            numbers, folder = flat_metrics(saved.metrics), Path(saved.checkpoint.path)
            score, stage = numbers.get(metric, math.nan), ranking_stage(numbers, metric)
            if folder.is_dir():
                one = Candidate(trial.trial_id, folder, saved.metrics["training_iteration"], score, stage)
                found[one.trial, one.iteration] = one

    # A checkpoint from before the first finished episode has no score; it comes last.
    def rank(c: Candidate) -> tuple[int, float, int]:
        return -c.stage, -sign * c.score if math.isfinite(c.score) else math.inf, -c.iteration

    return sorted(found.values(), key=rank)[:top_k]


def select(sweep: SweepConfig, trials: Sequence[Any], run: RunFolder) -> dict[str, Any] | None:
    """Plays the candidates, writes best/, and returns the summary's `best`; None when there is no checkpoint at all."""
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
) -> tuple[Candidate, dict[str, Any]]:
    """The best by what each does on the same seeds, and its evaluation in numbers; writes best/."""
    rules = sweep.selection
    seeds = list(range(rules.seed, rules.seed + rules.episodes))
    played = []
    for candidate in chosen:
        evaluation = evaluate_checkpoint(candidate.folder, seeds, rules.explore)
        played.append(Played(candidate, evaluation, evaluation.scores(sweep.search.metric)))
    played = ranked(played, rules, 1.0 if sweep.search.mode == "max" else -1.0)
    _write_best(sweep, played, run)
    return played[0].candidate, describe(played[0].evaluation, sweep.search.metric, rules)


def _select_by_games(
    sweep: SweepConfig, chosen: Sequence[Candidate], run: RunFolder
) -> tuple[Candidate, dict[str, Any]]:
    """The best by its mean result against the other candidates, and its games in numbers; writes best/."""
    rules, judged = sweep.selection, play_tournament(sweep, [candidate.folder for candidate in chosen])
    order = sorted(range(len(chosen)), key=lambda number: -float(np.mean(judged[number].results)))
    rows = [_row(chosen[number], run) | describe_games(judged[number], rules) for number in order]
    first = order[0]
    rival = next((number for number in order if chosen[number].trial != chosen[first].trial), None)
    record: dict[str, Any] = {"separated": False, "difference_to_next": None, "baseline": None}
    record["seeds"] = sorted(set(judged[first].seeds))
    if rival is not None:
        difference, ci = lead(judged[first], judged[rival], rules)
        next_one = {"trial": chosen[rival].trial, "difference": difference, "ci95": list(ci)}
        record |= {"separated": ci[0] > 0 or ci[1] < 0, "difference_to_next": next_one}
    _keep(chosen[first], run)
    write_json(run.evaluation, _judges(sweep) | {"winner": rows[0], "candidates": rows, **record})
    return chosen[first], describe_games(judged[first], rules)


def ranked(played: Sequence[Played], rules: SelectionConfig, sign: float) -> list[Played]:
    """Best first, by interquartile mean; of those whose difference to the best may be chance, the highest mean wins.

    The interquartile mean does not feel one episode in a hundred that fails, the mean does.

    Args:
        sign: 1 if more is better, -1 if less is.
    """
    order = sorted(played, key=lambda p: -sign * float(iqm(p.scores)))

    def tied(other: Played) -> bool:
        return not separation(
            order[0].scores, other.scores, True, rules.confidence, rules.bootstrap, rules.seed
        ).separated

    winner = max((p for p in order if tied(p)), key=lambda p: sign * float(p.scores.mean()))
    return [winner, *(p for p in order if p is not winner)]


def describe(evaluation: Evaluation, metric: str, rules: SelectionConfig) -> dict[str, Any]:
    """An evaluation in numbers: the score's IQM and interval; both returns and the world's metrics as means."""
    scores = evaluation.scores(metric)
    low, high = bootstrap_ci(scores, rules.confidence, rules.bootstrap, rules.seed)
    return {
        "episodes": len(scores),
        "return_mean_agent": float(evaluation.mean_agent.mean()),
        "return_sum_team": float(evaluation.sum_team.mean()),
        "iqm": float(iqm(scores)),
        "ci95": [low, high],
        "episode_len_mean": float(evaluation.lengths.mean()),
        **{name: float(np.mean(values)) for name, values in sorted(evaluation.metrics.items())},
    }


def _write_best(sweep: SweepConfig, ranked: Sequence[Played], run: RunFolder) -> None:
    winner, metric = ranked[0], sweep.search.metric
    trained = _keep(winner.candidate, run)
    rows = [_row(played.candidate, run) | describe(played.evaluation, metric, sweep.selection) for played in ranked]
    record = {
        **_judges(sweep),
        "seeds": winner.evaluation.seeds,
        "winner": rows[0],
        "candidates": rows,
        **_separation(ranked, sweep.selection),
        "baseline": _baseline(trained, sweep, winner.evaluation.seeds),
    }
    write_json(run.evaluation, record)


def _keep(winner: Candidate, run: RunFolder) -> SweepConfig:
    """Copies the winner into best/; returns the settings that it was trained with."""
    shutil.rmtree(run.best, ignore_errors=True)
    shutil.copytree(winner.folder, run.best_checkpoint)
    trained = checkpoint_files.load_sweep(run.best_checkpoint)
    write_text(run.best_config, yaml.safe_dump(convert.to_dict(trained), sort_keys=False))
    return trained


def _row(candidate: Candidate, run: RunFolder) -> dict[str, Any]:
    return {
        "trial": candidate.trial,
        "checkpoint": run.relative(candidate.folder),
        "iteration": candidate.iteration,
        "training_score": candidate.score,
    }


def _judges(sweep: SweepConfig) -> dict[str, Any]:
    rules = sweep.selection
    return {
        "metric": sweep.search.metric,
        "mode": sweep.search.mode,
        "confidence": rules.confidence,
        "explore": rules.explore,
    }


def _separation(ranked: Sequence[Played], rules: SelectionConfig) -> dict[str, Any]:
    """Whether the winner is told from the best policy of another trial; another checkpoint of its own is no rival."""
    winner = ranked[0]
    rival = next((p for p in ranked[1:] if p.candidate.trial != winner.candidate.trial), None)
    if rival is None:
        return {"separated": False, "difference_to_next": None}
    apart = separation(winner.scores, rival.scores, True, rules.confidence, rules.bootstrap, rules.seed)
    difference = {"trial": rival.candidate.trial, "difference": apart.difference, "ci95": list(apart.ci)}
    return {"separated": apart.separated, "difference_to_next": difference}


def _baseline(trained: SweepConfig, sweep: SweepConfig, seeds: Sequence[int]) -> dict[str, Any] | None:
    """How the world's scripted policy does on the same seeds, where it has one."""
    if trained.env.name not in envs.BASELINES:
        return None
    name = envs.BASELINES[trained.env.name].rsplit(":", 1)[-1]
    with envs.make_world(trained.env, len(seeds)) as world:  # without what a sharing scheme adds to it
        evaluation = play(world, envs.baseline_class(trained.env.name)(world), seeds)
    return {"name": name, **describe(evaluation, sweep.search.metric, sweep.selection)}
