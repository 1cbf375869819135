"""Plays a policy on given seeds: many episodes side by side, one forward pass for each module and step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from ray.rllib.core.rl_module.rl_module import RLModule

from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.envs.agent_group import Observations
from marl_tune.envs.world import World
from marl_tune.results import checkpoint_files
from marl_tune.results.metrics import EPISODE_LEN_MEAN, EPISODE_RETURN_MEAN, RETURN_SUM_TEAM
from marl_tune.sampling.episode_metrics import group_returns
from marl_tune.sampling.policies import Policies
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.module_specs import build_policy_map, module_specs

COPIES_AT_ONCE = 128  # limits the memory of an evaluation; more copies are not faster


@dataclass
class Evaluation:
    """Returns (extrinsic, undiscounted) and metrics of the played episodes, in the order of their seeds.

    >>> returns = {"a": np.array([1.0, 3.0]), "b": np.array([3.0, 5.0])}
    >>> evaluation = Evaluation([7, 8], returns, lengths=np.array([20, 25]), metrics={"food": np.array([0.0, 2.0])})
    >>> evaluation.mean_agent.tolist(), evaluation.sum_team.tolist()
    ([2.0, 4.0], [4.0, 8.0])
    >>> evaluation.scores("env_runners/food").tolist()
    [0.0, 2.0]
    """

    seeds: list[int]
    returns: dict[str, np.ndarray]  # agent -> (episodes,); only agents of groups that count
    lengths: np.ndarray  # (episodes,) env-steps
    metrics: dict[str, np.ndarray]  # the environment's own: name -> (episodes,)

    @property
    def mean_agent(self) -> np.ndarray:
        """(episodes,) mean over agents of the episode return."""
        return np.mean(list(self.returns.values()), axis=0)

    @property
    def sum_team(self) -> np.ndarray:
        """(episodes,) sum over agents of the episode return."""
        return np.sum(list(self.returns.values()), axis=0)

    def scores(self, metric: str) -> np.ndarray:
        """(episodes,) what `metric` ranks by: the metric itself if an evaluation has it, else the mean over agents.

        Args:
            metric: name of a training metric, such as env_runners/food_collected; its last part counts.
        """
        name = metric.rsplit("/", 1)[-1]
        known = {
            RETURN_SUM_TEAM: self.sum_team,
            EPISODE_RETURN_MEAN: self.sum_team,
            EPISODE_LEN_MEAN: self.lengths,
        }
        return np.asarray({**self.metrics, **known}.get(name, self.mean_agent), dtype=np.float64)


class JointPolicy(Protocol):
    """Chooses the actions of all agents of a world. The scripted baselines of envs/ are joint policies.

    >>> from marl_tune import envs
    >>> world = envs.make_world(envs.default_config("signal"), num_envs=2)
    >>> baseline = envs.baseline_class("signal")(world)
    >>> play(world, baseline, seeds=[1, 2]).lengths.tolist()
    [20, 20]
    """

    def act(self, observations: Observations) -> dict[str, np.ndarray]:
        """Group -> actions (B, N, ...), chosen from group -> observations (B, N, ...)."""


class ModulePolicy:
    """A joint policy of modules.

    >>> from marl_tune.config.compose import compose
    >>> (sweep,) = compose(["env=signal"])
    >>> world = build_world(sweep, 2)
    >>> modules = module_specs(sweep, build_policy_map(sweep, world)).build()
    >>> module_policy(sweep, modules, world, explore=False).act(world.reset([1, 2]))["agents"].shape
    (2, 4)

    Args:
        policies: the modules, and which of them acts for which agent.
        world: the world that is played.
        explore: draw the actions; off: take the most likely ones.
    """

    def __init__(self, policies: Policies, world: World, explore: bool) -> None:
        self.policies, self.world, self.explore = policies, world, explore

    def act(self, observations: Observations) -> dict[str, np.ndarray]:
        """See `JointPolicy.act`."""
        return self.policies.act(observations, self.explore, self.world.acting)[1]


def load_modules(folder: Path, sweep: SweepConfig) -> dict[str, RLModule]:
    """Module id -> module of a checkpoint, ready to act. Needs no Ray cluster.

    Args:
        folder: the checkpoint.
        sweep: the settings that it was trained with.
    """
    with build_world(sweep, 1) as world:
        policy_map = build_policy_map(sweep, world)
    module = module_specs(sweep, policy_map).build()
    module.set_state(checkpoint_files.load_weights(folder))
    return {module_id: part.eval() for module_id, part in module.items()}


def evaluate_checkpoint(folder: Path, seeds: Sequence[int], explore: bool = False) -> Evaluation:
    """Plays one episode for each seed with the policy of a checkpoint folder. `explore`: draw its actions."""
    sweep = checkpoint_files.load_sweep(folder)
    return evaluate_modules(sweep, load_modules(folder, sweep), seeds, explore)


def evaluate_modules(
    sweep: SweepConfig, modules: Mapping[str, RLModule], seeds: Sequence[int], explore: bool = False
) -> Evaluation:
    """Plays one episode for each seed with modules in memory, in new copies of the world."""

    def make_policy(world: World, places: range) -> JointPolicy:
        return module_policy(sweep, modules, world, explore)

    return play_many(sweep, seeds, make_policy)


def module_policy(sweep: SweepConfig, modules: Mapping[str, RLModule], world: World, explore: bool) -> ModulePolicy:
    """The joint policy in which the module that the sharing scheme gives an agent acts for it."""
    policy_map = build_policy_map(sweep, world).first_choices()
    return ModulePolicy(Policies(modules, policy_map, world.num_envs), world, explore)


def play_many(
    sweep: SweepConfig, seeds: Sequence[int], make_policy: Callable[[World, range], JointPolicy]
) -> Evaluation:
    """Plays one episode for each seed, `COPIES_AT_ONCE` at a time.

    Torch's generator is seeded with the first seed, so that a policy that draws its actions repeats the same episodes.
    Its state is restored afterwards.

    Args:
        sweep: its world is played.
        seeds: of the episodes.
        make_policy: (copies of the world, positions in `seeds` of the episodes that they play) -> who acts in them.
    """
    parts = []
    generator = torch.get_rng_state()
    torch.manual_seed(seeds[0])
    for start in range(0, len(seeds), COPIES_AT_ONCE):
        places = range(start, min(start + COPIES_AT_ONCE, len(seeds)))
        with build_world(sweep, len(places)) as world:
            parts.append(play(world, make_policy(world, places), [seeds[place] for place in places]))
    torch.set_rng_state(generator)
    return _joined(parts)


def play(world: World, policy: JointPolicy, seeds: Sequence[int]) -> Evaluation:
    """Plays one episode in each copy of `world`, copy i from seeds[i], until all have ended."""
    observations = world.reset(list(seeds))
    copies = world.num_envs
    running = np.ones(copies, dtype=bool)
    lengths = np.zeros(copies, dtype=np.int64)
    counted = [group for group in world.groups if group.counted]
    totals = {group.name: np.zeros((copies, len(group.agents))) for group in counted}
    metrics: dict[str, np.ndarray] = {}
    while running.any():
        step = world.step(policy.act(observations))
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
        if len(done) and running.any():  # a done copy must not be stepped: it begins an episode that does not count
            observations = world.reset(copies=done)
    returns = {agent: totals[g.name][:, i] for g in counted for i, agent in enumerate(g.agents)}
    whole = {name: values for name, values in metrics.items() if not np.isnan(values).any()}  # those of every episode
    return Evaluation(list(seeds), returns, lengths, whole | group_returns(world.groups, returns))


def _joined(parts: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of all episodes. Metrics that some part lacks are left out."""
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
