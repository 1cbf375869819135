"""Policies against each other. Under self-play, candidates are judged so: what one side wins, the other loses, so the
return of a policy against itself says nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from ray.rllib.core.rl_module.rl_module import RLModule

from marl_tune.config.schema.self_play import VersusConfig
from marl_tune.config.schema.sweep import SelectionConfig, SweepConfig
from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.world import World
from marl_tune.evaluation.play import Evaluation, ModulePolicy, load_modules, play_many
from marl_tune.evaluation.statistics import bootstrap_mean_ci, iqm, resampled_means
from marl_tune.results import checkpoint_files
from marl_tune.results.json_records import EvaluationNumbers
from marl_tune.sampling.games import results_of, returns_of
from marl_tune.sampling.policies import Policies
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.game_sides import learners_of, sides_of, slots_of
from marl_tune.sharing.policy_map import PolicyMap


@dataclass(frozen=True)
class Match:
    """One game: the player `home` plays one side, the player `away` all others.

    >>> rules = SelectionConfig(top_k=2, episodes=2, seed=50, confidence=0.95, bootstrap=100, explore=True)
    >>> schedule(num_players=2, num_sides=2, rules=rules)[0]
    Match(home=0, away=1, side=0, seed=50)
    """

    home: int  # number of a player, from 0
    away: int  # number of another player
    side: int  # number of the side that `home` plays
    seed: int  # of the episode


@dataclass
class CandidateGames:
    """All games of one candidate; entry i of each list is of game i.

    >>> games = CandidateGames([1.0, 0.5], returns=[0.5, 0.0], team=[1.0, 0.0], lengths=[7, 9], seeds=[50, 51])
    >>> rules = SelectionConfig(top_k=2, episodes=2, seed=50, confidence=0.95, bootstrap=100, explore=True)
    >>> describe_games(games, rules)["mean_result"]
    0.75
    """

    results: list[float]  # win 1, draw 0.5, loss 0; with more than two sides, the mean over the other sides
    returns: list[float]  # mean over its agents of the return
    team: list[float]  # sum over its agents of the return
    lengths: list[int]  # env-steps
    seeds: list[int]


def play_tournament(sweep: SweepConfig, folders: Sequence[Path]) -> list[CandidateGames]:
    """Each candidate plays against each other one on all sides, all on the same unseen seeds.

    A candidate plays about `selection.episodes` games. A single candidate plays against the untrained policy of its
    own pool.

    Args:
        sweep: its world is played, by the rules of its `selection`.
        folders: checkpoints of the candidates.

    Returns:
        The games of each candidate, in the same order.
    """
    modules = [_learner(folder) for folder in folders]
    if len(modules) == 1:
        modules.append(_untrained(folders[0]))
    with build_world(sweep, 1) as world:
        sides = _sides(world.groups, sweep)
    matches = schedule(len(modules), len(sides), sweep.selection)

    def make_policy(world: World, places: range) -> ModulePolicy:
        some = matches[places.start : places.stop]
        return _policy_of_matches(world, modules, sides, some, sweep.selection.explore)

    evaluation = play_many(sweep, [match.seed for match in matches], make_policy)
    return _by_player(evaluation, matches, sides, len(modules))[: len(folders)]


def _learner(folder: Path) -> RLModule:
    """The module of a checkpoint that is judged: its first learner."""
    sweep = checkpoint_files.load_sweep(folder)
    assert isinstance(sweep.sharing, VersusConfig)
    return load_modules(folder, sweep)[next(iter(learners_of(sweep.sharing)))]


def _untrained(folder: Path) -> RLModule:
    """The untrained policy, which the first slot of a checkpoint's pool holds."""
    sweep = checkpoint_files.load_sweep(folder)
    assert isinstance(sweep.sharing, VersusConfig)
    return load_modules(folder, sweep)[slots_of(sweep.sharing)[0]]


def _sides(groups: Sequence[AgentGroup], sweep: SweepConfig) -> list[tuple[str, ...]]:
    """The agents of each side."""
    assert isinstance(sweep.sharing, VersusConfig)
    return list(sides_of(groups, sweep.sharing).values())


def schedule(num_players: int, num_sides: int, rules: SelectionConfig) -> list[Match]:
    """The matches of a tournament, in rounds. All matches of a round have the same seed.

    In a round, each player meets each other one twice, as `home` and as `away`. With more than two sides, it does so
    once for each side that `home` can play.

    Args:
        num_players: at least 2.
        num_sides: at least 2.
        rules: the first seed, and how many games a player plays at least.
    """
    places = range(num_sides) if num_sides > 2 else range(1)
    rounds = math.ceil(rules.episodes / (2 * (num_players - 1) * len(places)))
    return [
        Match(home, away, side, rules.seed + number)
        for number in range(rounds)
        for home, away in permutations(range(num_players), 2)
        for side in places
    ]


def _policy_of_matches(
    world: World, modules: Sequence[RLModule], sides: Sequence[Sequence[str]], matches: Sequence[Match], explore: bool
) -> ModulePolicy:
    """The joint policy of all copies of the world; copy i plays matches[i]."""
    names = [f"candidate_{number}" for number in range(len(modules))]

    def draw(_: np.random.Generator, turn: int) -> dict[str, str]:
        match = matches[turn]
        who = [names[match.home if number == match.side else match.away] for number in range(len(sides))]
        return {agent: name for name, agents in zip(who, sides, strict=True) for agent in agents}

    policy_map = PolicyMap(world.groups, {agent: names for agents in sides for agent in agents}, draw)
    return ModulePolicy(Policies(dict(zip(names, modules, strict=True)), policy_map, world.num_envs), world, explore)


def _by_player(
    evaluation: Evaluation, matches: Sequence[Match], sides: Sequence[Sequence[str]], num_players: int
) -> list[CandidateGames]:
    """The games of each player."""
    games = [CandidateGames([], [], [], [], []) for _ in range(num_players)]
    returns = returns_of(sides, evaluation.returns)
    for number, match in enumerate(matches):
        result = float(results_of(returns[:, [number]], match.side)[0])
        own, others = float(returns[match.side, number]), np.delete(returns[:, number], match.side)
        agents, rest = len(sides[match.side]), sum(map(len, sides)) - len(sides[match.side])
        for player, score, team, size in (
            (match.home, result, own, agents),
            (match.away, 1 - result, float(others.sum()), rest),
        ):
            games[player].results.append(score)
            games[player].returns.append(team / size)
            games[player].team.append(team)
            games[player].lengths.append(int(evaluation.lengths[number]))
            games[player].seeds.append(match.seed)
    return games


def describe_games(games: CandidateGames, rules: SelectionConfig) -> EvaluationNumbers:
    """A candidate's games in numbers. The names are those of `selection.describe`; `mean_result` ranks."""
    low, high = bootstrap_mean_ci(games.results, rules.confidence, rules.bootstrap, rules.seed)
    return {
        "episodes": len(games.results),
        "return_mean_agent": float(np.mean(games.returns)),
        "return_sum_team": float(np.mean(games.team)),
        "mean_result": float(np.mean(games.results)),
        "iqm": float(iqm(games.results)),
        "ci95": [low, high],
        "episode_len_mean": float(np.mean(games.lengths)),
    }


def lead(first: CandidateGames, second: CandidateGames, rules: SelectionConfig) -> tuple[float, tuple[float, float]]:
    """The mean result of the first minus that of the second, and the bootstrap interval of this difference."""
    one, other = np.random.default_rng(rules.seed).spawn(2)
    differences = resampled_means(first.results, rules.bootstrap, one) - resampled_means(
        second.results, rules.bootstrap, other
    )
    tail = (1 - rules.confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return float(np.mean(first.results) - np.mean(second.results)), (float(low), float(high))
