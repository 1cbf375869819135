"""A trained policy against a scripted player, on all sides: `python -m marl_tune.evaluate PATH --against NAME`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypedDict, cast

import numpy as np
from ray.rllib.core.rl_module.rl_module import RLModule

from marl_tune import envs
from marl_tune.config.errors import ConfigError, unknown
from marl_tune.config.schema.self_play import VersusConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.agent_group import AgentGroup, Observations
from marl_tune.envs.world import World
from marl_tune.evaluation.play import ModulePolicy, load_modules, module_policy, play_many
from marl_tune.evaluation.statistics import bootstrap_mean_ci, wilson_interval
from marl_tune.results import checkpoint_files
from marl_tune.sampling.games import results_of, returns_of
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.game_sides import sides_of

OUTCOMES = ("wins", "draws", "losses")


class ScriptedPlayer(Protocol):
    """Plays a game by rules, for single agents. Its random choices depend only on the seed.

    >>> world = envs.make_world(envs.default_config("classic/tictactoe"), num_envs=2)
    >>> player = envs.player_class("classic/tictactoe", "perfect")(world.groups, seed=0)
    >>> actions = player.act(world.reset([1, 2]), world.acting)
    >>> {group: moves.shape for group, moves in actions.items()}
    {'player': (2, 2)}

    Args:
        groups: the agent groups of the world.
        seed: of its random choices.
    """

    def __init__(self, groups: Sequence[AgentGroup], seed: int) -> None: ...

    def act(self, observations: Observations, acting: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Chooses the actions of the agents that act.

        Args:
            observations: group -> (B, N, ...).
            acting: group -> (B, N) bool.

        Returns:
            Group -> (B, N) int64.
        """


class GameCounts(TypedDict):
    """Results of games. Each interval is [low, high], at the level `selection.confidence`."""

    games: int
    wins: int
    wins_share: float  # of the games
    wins_ci: list[float]
    draws: int
    draws_share: float
    draws_ci: list[float]
    losses: int
    losses_share: float
    losses_ci: list[float]
    result: float  # mean over games: win 1, draw 0.5, loss 0
    result_ci: list[float]


class AgainstResult(TypedDict):
    """What `play_against` returns."""

    checkpoint: str
    against: str  # name of the scripted player
    seed: int  # of the first game
    explore: bool
    sides: dict[str, GameCounts]  # side that the policy played -> its games
    all: GameCounts  # the games of all sides


def play_against(
    folder: Path, name: str, episodes: int | None = None, seed: int | None = None, explore: bool = False
) -> AgainstResult:
    """Plays the policy of a checkpoint on each side, and the scripted player on all other sides.

    Args:
        folder: the checkpoint.
        name: of the world's scripted player.
        episodes: games for each side. Default: as many as the sweep's selection played.
        seed: of the first game and of the scripted player; the next game has the next seed. Default: the selection's.
        explore: draw the policy's actions; off: take the most likely ones.

    Raises:
        ConfigError: the world has no such player, or no second side.
    """
    sweep = checkpoint_files.load_sweep(folder)
    player_class = find_scripted_player(sweep.env, name)
    rules, modules = sweep.selection, load_modules(folder, sweep)
    first = rules.seed if seed is None else seed
    count = rules.episodes if episodes is None else episodes
    with build_world(sweep, 1) as world:
        sides = _sides(world.groups, sweep)
    results = {
        side: _results(sweep, modules, player_class, sides, side, range(first, first + count), explore)
        for side in sides
    }
    return {
        "checkpoint": str(folder),
        "against": name,
        "seed": first,
        "explore": explore,
        "sides": {side: _counts(of_side, sweep) for side, of_side in results.items()},
        "all": _counts(np.concatenate(list(results.values())), sweep),
    }


def find_scripted_player(env: Any, name: str) -> type[ScriptedPlayer]:
    """The class of a world's scripted player.

    Args:
        env: the world's settings.
        name: of the player.

    Raises:
        ConfigError: the world has no such player. The message names those that exist.
    """
    world = env.id if env.name == "pettingzoo" else env.name
    known = envs.PLAYERS.get(world, {})
    if not known:
        raise ConfigError(f"--against needs a world with scripted players ({', '.join(envs.PLAYERS)}), got {world}")
    if name not in known:
        raise unknown("--against", name, known)
    return cast(type[ScriptedPlayer], envs.player_class(world, name))


def _sides(groups: Sequence[AgentGroup], sweep: SweepConfig) -> dict[str, tuple[str, ...]]:
    """Side -> its agents. Without self-play, each agent is a side of its own."""
    if isinstance(sweep.sharing, VersusConfig):
        return sides_of(groups, sweep.sharing)
    agents = [agent for group in groups for agent in group.agents]
    if len(agents) < 2:
        raise ConfigError(f"--against needs a world of two or more agents, got {', '.join(agents)}")
    return {agent: (agent,) for agent in agents}


class _MixedPolicy:
    """A joint policy: a trained policy acts for the agents of one side, a scripted player for all others."""

    def __init__(self, policy: ModulePolicy, scripted: ScriptedPlayer, world: World, agents: Sequence[str]) -> None:
        self.policy, self.scripted, self.world = policy, scripted, world
        self.own = {g.name: np.array([agent in agents for agent in g.agents]) for g in world.groups}  # (N,)

    def act(self, observations: Observations) -> dict[str, np.ndarray]:
        """See `marl_tune.evaluation.play.JointPolicy`."""
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
    modules: Mapping[str, RLModule],
    player_class: type[ScriptedPlayer],
    sides: Mapping[str, Sequence[str]],
    side: str,
    seeds: range,
    explore: bool,
) -> np.ndarray:
    """(games,) results of the policy on one side: win 1, draw 0.5, loss 0; the mean over the others."""

    def make_policy(world: World, places: range) -> _MixedPolicy:
        scripted = player_class(world.groups, seeds[places.start])
        return _MixedPolicy(module_policy(sweep, modules, world, explore), scripted, world, sides[side])

    returns = play_many(sweep, seeds, make_policy).returns
    return results_of(returns_of(sides.values(), returns), list(sides).index(side))


def _counts(results: np.ndarray, sweep: SweepConfig) -> GameCounts:
    """How many games were won, drawn and lost: the result was above 0.5, 0.5, or below 0.5."""
    rules, games = sweep.selection, len(results)
    counts = dict(zip(OUTCOMES, (results > 0.5, results == 0.5, results < 0.5), strict=True))
    told: dict[str, object] = {"games": games}
    for outcome, happened in counts.items():
        number = int(happened.sum())
        low, high = wilson_interval(number, games, rules.confidence)
        told |= {outcome: number, f"{outcome}_share": number / games, f"{outcome}_ci": [low, high]}
    low, high = bootstrap_mean_ci(results, rules.confidence, rules.bootstrap, rules.seed)
    return cast(GameCounts, told | {"result": float(results.mean()), "result_ci": [low, high]})


def as_table(result: AgainstResult) -> str:
    """The result of `play_against` as lines of text."""
    how = "actions drawn" if result["explore"] else "greedy"
    lines = [f"{result['checkpoint']} against {result['against']}, {how}, seeds from {result['seed']} on"]
    width = max(map(len, (*result["sides"], "all sides")))
    lines.append(f"{'':<{width}}  {'games':>6}  " + "  ".join(f"{outcome:<25}" for outcome in OUTCOMES))
    for name, told in (*result["sides"].items(), ("all sides", result["all"])):
        cells = []
        for number, share, (low, high) in (
            (told["wins"], told["wins_share"], told["wins_ci"]),
            (told["draws"], told["draws_share"], told["draws_ci"]),
            (told["losses"], told["losses_share"], told["losses_ci"]),
        ):
            words = f"{100 * share:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
            cells.append(f"{number:>5}  {words:<18}")
        lines.append(f"{name:<{width}}  {told['games']:>6}  " + "  ".join(cells))
    return "\n".join(line.rstrip() for line in lines)
