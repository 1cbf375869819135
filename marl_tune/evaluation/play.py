"""Plays a policy greedily on given seeds: all episodes side by side, one forward pass per module and step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.world import World
from marl_tune.results import checkpoint_files
from marl_tune.sampling.episode_metrics import group_returns
from marl_tune.sampling.policies import Policies
from marl_tune.sharing.module_specs import build_policy_map, module_specs
from marl_tune.sharing.world import build_world

COPIES_AT_ONCE = 128  # bounds the memory of an evaluation; more copies bring no more speed


@dataclass
class Evaluation:
    """Returns (extrinsic, undiscounted) and metrics of the played episodes, in the order of their seeds."""

    seeds: list[int]
    returns: dict[str, np.ndarray]  # agent -> (episodes,); of groups that count
    lengths: np.ndarray  # (episodes,)
    metrics: dict[str, np.ndarray]  # the world's own: name -> (episodes,)

    @property
    def mean_agent(self) -> np.ndarray:
        """(episodes,) mean over agents of the episode return."""
        return np.mean(list(self.returns.values()), axis=0)

    @property
    def sum_team(self) -> np.ndarray:
        """(episodes,) sum over agents of the episode return."""
        return np.sum(list(self.returns.values()), axis=0)

    def scores(self, metric: str) -> np.ndarray:
        """(episodes,) values of a training metric, where an evaluation has it, else an agent's mean return."""
        name = metric.rsplit("/", 1)[-1]
        known = {
            "return_sum_team": self.sum_team,
            "episode_return_mean": self.sum_team,
            "episode_len_mean": self.lengths,
        }
        return np.asarray({**self.metrics, **known}.get(name, self.mean_agent), dtype=np.float64)


class Player(Protocol):
    """Acts for a whole world; the scripted baselines of envs/ are players too."""

    def act(self, observations: Any) -> dict[str, np.ndarray]:
        """Group -> observations (B, N, ...) to group -> actions (B, N, ...)."""


class PolicyPlayer:
    """Acts by modules."""

    def __init__(self, policies: Policies, world: World, explore: bool):
        self.policies, self.world, self.explore = policies, world, explore

    def act(self, observations: Any) -> dict[str, np.ndarray]:
        """See `Player.act`."""
        return self.policies.act(observations, self.explore, self.world.acting)[1]


def load_modules(folder: Path, sweep: SweepConfig) -> dict[str, Any]:
    """Module id -> RLModule of a checkpoint, ready to act; needs no Ray cluster."""
    with build_world(sweep, 1) as world:
        policy_map = build_policy_map(sweep, world)
    module = module_specs(sweep, policy_map).build()
    module.set_state(checkpoint_files.load_weights(folder))
    return {module_id: part.eval() for module_id, part in module.items()}


def evaluate_checkpoint(folder: Path, seeds: Sequence[int], explore: bool = False) -> Evaluation:
    """Plays one episode for each seed with the policy of a checkpoint folder."""
    sweep = checkpoint_files.load_sweep(folder)
    return evaluate_modules(sweep, load_modules(folder, sweep), seeds, explore)


def evaluate_modules(
    sweep: SweepConfig, modules: Mapping[str, Any], seeds: Sequence[int], explore: bool = False
) -> Evaluation:
    """Plays one episode for each seed with living modules, in copies of the world of their own."""

    def player(world: World, places: range) -> Player:
        return policy_player(sweep, modules, world, explore)

    return play_many(sweep, seeds, player)


def policy_player(sweep: SweepConfig, modules: Mapping[str, Any], world: World, explore: bool) -> PolicyPlayer:
    """Acts for every agent by the module that the sharing scheme gives it."""
    policy_map = build_policy_map(sweep, world).first_choices()
    return PolicyPlayer(Policies(modules, policy_map, world.num_envs), world, explore)


def play_many(sweep: SweepConfig, seeds: Sequence[int], player: Callable[[World, range], Player]) -> Evaluation:
    """Plays one episode for each seed, `COPIES_AT_ONCE` at a time.

    Args:
        sweep: whose world is played.
        seeds: of the episodes; the first is that of torch's generator, too, which is put back afterwards: a policy that
            samples its actions plays the same episodes again.
        player: (copies of the world, the places in `seeds` that they play) -> who acts in them.
    """
    parts = []
    generator = torch.get_rng_state()
    torch.manual_seed(seeds[0])
    for start in range(0, len(seeds), COPIES_AT_ONCE):
        places = range(start, min(start + COPIES_AT_ONCE, len(seeds)))
        with build_world(sweep, len(places)) as world:
            parts.append(play(world, player(world, places), [seeds[place] for place in places]))
    torch.set_rng_state(generator)
    return _joined(parts)


def play(world: World, player: Player, seeds: Sequence[int]) -> Evaluation:
    """Plays one episode in each copy of `world`, copy i from seeds[i], until all have ended."""
    observations = world.reset(list(seeds))
    copies = world.num_envs
    running = np.ones(copies, dtype=bool)
    lengths = np.zeros(copies, dtype=np.int64)
    counted = [group for group in world.groups if group.counted]
    totals = {group.name: np.zeros((copies, len(group.agents))) for group in counted}
    metrics: dict[str, np.ndarray] = {}
    while running.any():
        step = world.step(player.act(observations))
        observations = step.observations
        lengths += running
        for name, total in totals.items():
            total[running] += step.rewards[name][running]
        done = np.flatnonzero(step.terminated | step.truncated)
        ended = done[running[done]]
        if len(ended):
            for name, values in world.episode_metrics(ended).items():
                metrics.setdefault(name, np.full(copies, np.nan))[ended] = values
            running[ended] = False
        if len(done) and running.any():  # a copy that is done must not be stepped: it begins an episode not counted
            observations = world.reset(copies=done)
    returns = {agent: totals[g.name][:, i] for g in counted for i, agent in enumerate(g.agents)}
    whole = {name: values for name, values in metrics.items() if not np.isnan(values).any()}  # of every episode
    return Evaluation(list(seeds), returns, lengths, whole | group_returns(world.groups, returns))


def _joined(parts: Sequence[Evaluation]) -> Evaluation:
    return Evaluation(
        seeds=[seed for part in parts for seed in part.seeds],
        returns={agent: np.concatenate([p.returns[agent] for p in parts]) for agent in parts[0].returns},
        lengths=np.concatenate([p.lengths for p in parts]),
        metrics={
            name: np.concatenate([p.metrics[name] for p in parts])
            for name in parts[0].metrics
            if all(name in p.metrics for p in parts)
        },
    )
