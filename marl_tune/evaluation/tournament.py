"""Policies against each other: how candidates are judged where a return says nothing, because sides share out what
there is to win."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from marl_tune.config.schema.self_play import VersusConfig
from marl_tune.config.schema.sweep import SelectionConfig, SweepConfig
from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.world import World
from marl_tune.evaluation.play import Evaluation, PolicyPlayer, load_modules, play_many
from marl_tune.evaluation.statistics import bootstrap_mean_ci, iqm, resampled_means
from marl_tune.results import checkpoint_files
from marl_tune.sampling.games import results_of, returns_of
from marl_tune.sampling.policies import Policies
from marl_tune.sharing.game_sides import learners_of, sides_of, slots_of
from marl_tune.sharing.policy_map import PolicyMap
from marl_tune.sharing.world import build_world


@dataclass(frozen=True)
class Match:
    """One game: `home` plays a side, `away` all others."""

    home: int
    away: int
    side: int
    seed: int


@dataclass
class Judged:
    """All games of one candidate."""

    results: list[float]  # win 1, draw 0.5, loss 0; where there are more sides the mean over the opponents'
    returns: list[float]  # of its agents, their mean
    team: list[float]  # the same, their sum
    lengths: list[int]  # steps of the world
    seeds: list[int]


def play_tournament(sweep: SweepConfig, folders: Sequence[Path]) -> list[Judged]:
    """Everybody against everybody else on all sides, about `selection.episodes` games each, on the same unseen seeds.

    A lone candidate plays against the untrained policy of its own pool.

    Args:
        folders: checkpoints of the candidates.

    Returns:
        What each did, in the same order.
    """
    modules = [_main(folder) for folder in folders]
    if len(modules) == 1:
        modules.append(_untrained(folders[0]))
    with build_world(sweep, 1) as world:
        sides = _sides(world.groups, sweep)
    matches = _schedule(len(modules), len(sides), sweep.selection)

    def players(world: World, places: range) -> PolicyPlayer:
        some = matches[places.start : places.stop]
        return _players(world, modules, sides, some, sweep.selection.explore)

    evaluation = play_many(sweep, [match.seed for match in matches], players)
    return _shared_out(evaluation, matches, sides, len(modules))[: len(folders)]


def _main(folder: Path) -> Any:
    """The module of a checkpoint that is judged."""
    sweep = checkpoint_files.load_sweep(folder)
    assert isinstance(sweep.sharing, VersusConfig)
    return load_modules(folder, sweep)[next(iter(learners_of(sweep.sharing)))]


def _untrained(folder: Path) -> Any:
    sweep = checkpoint_files.load_sweep(folder)
    assert isinstance(sweep.sharing, VersusConfig)
    return load_modules(folder, sweep)[slots_of(sweep.sharing)[0]]


def _sides(groups: Sequence[AgentGroup], sweep: SweepConfig) -> list[tuple[str, ...]]:
    assert isinstance(sweep.sharing, VersusConfig)
    return list(sides_of(groups, sweep.sharing).values())


def _schedule(players: int, sides: int, rules: SelectionConfig) -> list[Match]:
    """Rounds of all matches, a seed a round: with two sides home and away games, with more each on every side."""
    places = range(sides) if sides > 2 else range(1)
    rounds = math.ceil(rules.episodes / (2 * (players - 1) * len(places)))
    return [
        Match(home, away, side, rules.seed + number)
        for number in range(rounds)
        for home, away in permutations(range(players), 2)
        for side in places
    ]


def _players(
    world: World, modules: Sequence[Any], sides: Sequence[Sequence[str]], matches: Sequence[Match], explore: bool
) -> PolicyPlayer:
    """Acts for all copies of the world, each of which is one of the matches."""
    names = [f"candidate_{number}" for number in range(len(modules))]

    def draw(_: np.random.Generator, turn: int) -> dict[str, str]:
        match = matches[turn]
        who = [names[match.home if number == match.side else match.away] for number in range(len(sides))]
        return {agent: name for name, agents in zip(who, sides, strict=True) for agent in agents}

    policy_map = PolicyMap(world.groups, {agent: names for agents in sides for agent in agents}, draw)
    return PolicyPlayer(Policies(dict(zip(names, modules, strict=True)), policy_map, world.num_envs), world, explore)


def _shared_out(
    evaluation: Evaluation, matches: Sequence[Match], sides: Sequence[Sequence[str]], players: int
) -> list[Judged]:
    """The games of each player."""
    judged = [Judged([], [], [], [], []) for _ in range(players)]
    returns = returns_of(sides, evaluation.returns)
    for number, match in enumerate(matches):
        result = float(results_of(returns[:, [number]], match.side)[0])
        own, others = float(returns[match.side, number]), np.delete(returns[:, number], match.side)
        agents, rest = len(sides[match.side]), sum(map(len, sides)) - len(sides[match.side])
        for player, score, team, size in (
            (match.home, result, own, agents),
            (match.away, 1 - result, float(others.sum()), rest),
        ):
            judged[player].results.append(score)
            judged[player].returns.append(team / size)
            judged[player].team.append(team)
            judged[player].lengths.append(int(evaluation.lengths[number]))
            judged[player].seeds.append(match.seed)
    return judged


def describe_games(judged: Judged, rules: SelectionConfig) -> dict[str, Any]:
    """A candidate's games in numbers, under the names of `selection.describe`; `mean_result` ranks."""
    low, high = bootstrap_mean_ci(judged.results, rules.confidence, rules.bootstrap, rules.seed)
    return {
        "episodes": len(judged.results),
        "return_mean_agent": float(np.mean(judged.returns)),
        "return_sum_team": float(np.mean(judged.team)),
        "mean_result": float(np.mean(judged.results)),
        "iqm": float(iqm(judged.results)),
        "ci95": [low, high],
        "episode_len_mean": float(np.mean(judged.lengths)),
    }


def lead(first: Judged, second: Judged, rules: SelectionConfig) -> tuple[float, tuple[float, float]]:
    """By how much the first's mean result is higher, and the bootstrap interval of that."""
    one, other = np.random.default_rng(rules.seed).spawn(2)
    differences = resampled_means(first.results, rules.bootstrap, one) - resampled_means(
        second.results, rules.bootstrap, other
    )
    tail = (1 - rules.confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return float(np.mean(first.results) - np.mean(second.results)), (float(low), float(high))
