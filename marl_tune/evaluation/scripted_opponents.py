"""`python -m marl_tune.evaluate PATH --against NAME`: a trained policy against a scripted player, on all sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from marl_tune import envs
from marl_tune.config.errors import ConfigError, unknown
from marl_tune.config.schema.self_play import VersusConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.agent_group import AgentGroup, Observations
from marl_tune.envs.world import World
from marl_tune.evaluation.play import PolicyPlayer, load_modules, play_many, policy_player
from marl_tune.evaluation.statistics import bootstrap_mean_ci, wilson_interval
from marl_tune.results import checkpoint_files
from marl_tune.sampling.games import results_of, returns_of
from marl_tune.sharing.game_sides import sides_of
from marl_tune.sharing.world import build_world

OUTCOMES = ("wins", "draws", "losses")


class ScriptedPlayer(Protocol):
    """Plays by rules; made with the world's groups and a seed, which is all that its chance depends on."""

    def act(self, observations: Observations, acting: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Group -> observations (B, N, ...) and group -> (B, N) bool to group -> actions (B, N) int64."""


def play_against(
    folder: Path, name: str, episodes: int | None = None, seed: int | None = None, explore: bool = False
) -> dict[str, Any]:
    """Plays the policy of a checkpoint on each side, the scripted player on all others.

    Args:
        folder: the checkpoint.
        name: of the world's scripted player.
        episodes: games a side; default: as many as the sweep's selection played.
        seed: of the first game and of the scripted player, the next game has the next seed; default: the selection's.
        explore: draw the policy's actions, rather than take the most likely.

    Returns:
        `checkpoint`, `against`, `seed`, `explore`, and under `sides` (side -> ...) and `all` the `games`, how many were
        `wins`, `draws` and `losses`, the share of each with its interval, and the mean `result` with its own.

    Raises:
        ConfigError: the world has no such player, or no second side.
    """
    sweep = checkpoint_files.load_sweep(folder)
    player_class = find_player(sweep.env, name)
    rules, modules = sweep.selection, load_modules(folder, sweep)
    first = rules.seed if seed is None else seed
    count = rules.episodes if episodes is None else episodes
    with build_world(sweep, 1) as world:
        sides = _sides(world.groups, sweep)
    results = {
        side: _results(sweep, modules, player_class, sides, side, range(first, first + count), explore)
        for side in sides
    }
    about = {"checkpoint": str(folder), "against": name, "seed": first, "explore": explore}
    told = {side: _described(of_side, sweep) for side, of_side in results.items()}
    return about | {"sides": told, "all": _described(np.concatenate(list(results.values())), sweep)}


def find_player(env: Any, name: str) -> Any:
    """The class of a world's scripted player; `ConfigError` names those that there are."""
    world = env.id if env.name == "pettingzoo" else env.name
    known = envs.PLAYERS.get(world, {})
    if not known:
        raise ConfigError(f"--against needs a world with scripted players ({', '.join(envs.PLAYERS)}), got {world}")
    if name not in known:
        raise unknown("--against", name, known)
    return envs.player_class(world, name)


def _sides(groups: Sequence[AgentGroup], sweep: SweepConfig) -> dict[str, tuple[str, ...]]:
    """Side -> agents; under another scheme than self-play every agent is one."""
    if isinstance(sweep.sharing, VersusConfig):
        return sides_of(groups, sweep.sharing)
    agents = [agent for group in groups for agent in group.agents]
    if len(agents) < 2:
        raise ConfigError(f"--against needs a world of two or more agents, got {', '.join(agents)}")
    return {agent: (agent,) for agent in agents}


class _Both:
    """The policy for the agents of one side, the scripted player for all others."""

    def __init__(self, policy: PolicyPlayer, scripted: ScriptedPlayer, world: World, agents: Sequence[str]):
        self.policy, self.scripted, self.world = policy, scripted, world
        self.own = {g.name: np.array([agent in agents for agent in g.agents]) for g in world.groups}  # (N,)

    def act(self, observations: Any) -> dict[str, np.ndarray]:
        """See `marl_tune.evaluation.play.Player`."""
        acting = self.world.acting
        if acting is None:
            acting = {name: np.ones((self.world.num_envs, len(own)), bool) for name, own in self.own.items()}
        scripted = self.scripted.act(observations, {name: acts & ~self.own[name] for name, acts in acting.items()})
        actions = self.policy.act(observations)
        for name, own in self.own.items():
            actions[name] = np.where(own, actions[name], scripted[name])
        return actions


def _results(
    sweep: SweepConfig,
    modules: Mapping[str, Any],
    player_class: Any,
    sides: Mapping[str, Sequence[str]],
    side: str,
    seeds: range,
    explore: bool,
) -> np.ndarray:
    """(games,) results of the policy on one side: 1, 0.5, 0, between them where there are several others."""

    def both(world: World, places: range) -> _Both:
        scripted = player_class(world.groups, seeds[places.start])
        return _Both(policy_player(sweep, modules, world, explore), scripted, world, sides[side])

    returns = play_many(sweep, seeds, both).returns
    return results_of(returns_of(sides.values(), returns), list(sides).index(side))


def _described(results: np.ndarray, sweep: SweepConfig) -> dict[str, Any]:
    """How many games were won, drawn and lost (better than, as good as, worse than the mean opponent)."""
    rules, games = sweep.selection, len(results)
    counts = dict(zip(OUTCOMES, (results > 0.5, results == 0.5, results < 0.5), strict=True))
    told: dict[str, Any] = {"games": games}
    for outcome, happened in counts.items():
        number = int(happened.sum())
        low, high = wilson_interval(number, games, rules.confidence)
        told |= {outcome: number, f"{outcome}_share": number / games, f"{outcome}_ci": [low, high]}
    low, high = bootstrap_mean_ci(results, rules.confidence, rules.bootstrap, rules.seed)
    return told | {"result": float(results.mean()), "result_ci": [low, high]}


def as_table(result: dict[str, Any]) -> str:
    """The numbers of `play_against` for people."""
    how = "actions drawn" if result["explore"] else "greedy"
    lines = [f"{result['checkpoint']} against {result['against']}, {how}, seeds from {result['seed']} on"]
    width = max(map(len, (*result["sides"], "all sides")))
    lines.append(f"{'':<{width}}  {'games':>6}  " + "  ".join(f"{outcome:<25}" for outcome in OUTCOMES))
    for name, told in (*result["sides"].items(), ("all sides", result["all"])):
        cells = []
        for outcome in OUTCOMES:
            low, high = told[f"{outcome}_ci"]
            share = f"{100 * told[f'{outcome}_share']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
            cells.append(f"{told[outcome]:>5}  {share:<18}")
        lines.append(f"{name:<{width}}  {told['games']:>6}  " + "  ".join(cells))
    return "\n".join(line.rstrip() for line in lines)
