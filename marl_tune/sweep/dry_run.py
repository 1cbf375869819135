"""The dry run: builds every part, steps the world and the modules once, and prints the plan of the sweep."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule

from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.cluster.connect import concurrent_trials
from marl_tune.cluster.machine import machine_resources
from marl_tune.cluster.ray_quiet import quiet_ray
from marl_tune.config import overrides
from marl_tune.config.curriculum_stages import stage_sweeps
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.search_space import Distribution, parse, trial_count
from marl_tune.config.trial_budget import fragment_length, max_iterations, num_copies
from marl_tune.config.trial_resources import Resources, trial_resources
from marl_tune.envs.curriculum import curriculum_of
from marl_tune.envs.world import agents_per_step
from marl_tune.sampling.policies import Policies
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.module_specs import build_policy_map, trains
from marl_tune.sharing.schemes import CRITIC
from marl_tune.sweep.module_table import scheme_lines


def print_plan(sweep: SweepConfig) -> None:
    """Prints the plan of a sweep. Starts no Ray cluster and writes nothing. Raises what building a part raises."""
    quiet_ray()
    for line in plan_lines(sweep):
        print(line)


def plan_lines(sweep: SweepConfig) -> list[str]:
    """The plan, one line for each fact."""
    space = parse(sweep.space) if sweep.search.name != "none" else {}
    built = [_Built(variant) for variant in _structures(sweep, space)]
    first, curriculum = built[0], _curriculum_lines(sweep)
    there = machine_resources() if sweep.cluster.name == "local" else None
    trials = trial_count(sweep.search.name, sweep.search.num_samples, space)
    return [
        f"sweep       {sweep.name}: search={sweep.search.name}, {trials} trials",
        f"ranked by   {sweep.search.metric} ({sweep.search.mode})",
        *(f"  searched  {key}: {distribution}" for key, distribution in space.items()),
        *_resource_lines(sweep, there),
        *(line for one in built for line in one.lines()),
        *curriculum,
        f"batch       {_arithmetic(sweep, first.agents)}",
        f"memory      {_memory(sweep, first)}",
        f"stop        {_limits(sweep, first.agents)}",
        f"disk        {_disk(sweep, first.bytes_saved, trials)}",
    ]


def _structures(sweep: SweepConfig, space: dict[str, Distribution]) -> list[SweepConfig]:
    """The sweep, or one variant for each option of a group that is searched. Each of them must build."""
    variants = [
        overrides.apply(sweep, {key: name})
        for key, distribution in space.items()
        if key in sweep.group_options
        for name in distribution.choices
    ]
    return variants or [sweep]


class _Built:
    """A world and its modules, stepped once."""

    def __init__(self, sweep: SweepConfig):
        self.sweep = sweep
        with build_world(sweep, sweep.cluster.num_envs_per_env_runner) as world:
            self.policy_map = build_policy_map(sweep, world)
            self.agents = agents_per_step(world)
            self.groups = world.groups
            self.config = algorithm_config(sweep)
            self.modules = dict(self.config.rl_module_spec.build().items())
            observations = world.reset([sweep.seed + i for i in range(world.num_envs)])
            if CRITIC in self.modules:
                self.modules[CRITIC].compute_values({Columns.OBS: torch.as_tensor(world.state(observations))})
            _, actions = Policies(self.modules, self.policy_map, world.num_envs).act(observations, True, world.acting)
            world.step(actions)
        self.bytes_saved = self._bytes_saved()

    def _bytes_saved(self) -> int:
        """Size of one checkpoint: the weights, and Adam's two moments of each module that learns."""
        learning = {m: module for m, module in self.modules.items() if trains(self.sweep, m)}
        return _bytes_of(self.modules) + 2 * _bytes_of(learning)

    def lines(self) -> list[str]:
        """The world, the modules, and which agents each module acts for."""
        out = [f"env         {self.sweep.env.name}: {', '.join(f'{len(g.agents)} {g.name}' for g in self.groups)}"]
        out += [f"  {g.name:<9} observation {g.observation_space}, action {g.action_space}" for g in self.groups]
        out.append(f"module      {self.sweep.module.name}, sharing={self.sweep.sharing.name}")
        return out + scheme_lines(self.policy_map, self.modules, self.config)


def _curriculum_lines(sweep: SweepConfig) -> list[str]:
    """The stages of the curriculum and when each is left. Each is built and stepped once."""
    curriculum = curriculum_of(sweep.env)
    if curriculum is None:
        return []
    lines = [f"curriculum  by {curriculum.metric} over the last {curriculum.episodes} episodes of a stage"]
    for number, staged in enumerate(stage_sweeps(sweep)[:-1]):
        agents, copies = _Built(staged).agents, num_copies(staged)
        changes = " ".join(f"{key}={value}" for key, value in curriculum.stages[number].items())
        batch = f"{copies} copies x {fragment_length(staged, agents)} steps x {agents} agents"
        lines.append(f"  stage {number}   {changes}: {batch}, left at {curriculum.thresholds[number]:g}")
    back = "" if curriculum.fall_back is None else f"; back to the stage before below {curriculum.fall_back:g}"
    return [*lines, f"  stage {len(curriculum.stages)}   the world itself{back}"]


def _bytes_of(modules: Mapping[str, RLModule]) -> int:
    """Size of the modules' weights in a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.pt"
        torch.save({m: module.get_state() for m, module in modules.items()}, path)
        return path.stat().st_size


def _resource_lines(sweep: SweepConfig, there: Resources | None) -> list[str]:
    need = trial_resources(sweep)
    line = f"resources   a trial takes {need.cpus:g} CPU and {need.gpus:g} GPU"
    if there is None:
        return [f"{line}; the cluster at {sweep.cluster.address} is asked when the sweep starts"]
    given = Resources(
        there.cpus if sweep.cluster.num_cpus is None else sweep.cluster.num_cpus,
        there.gpus if sweep.cluster.num_gpus is None else sweep.cluster.num_gpus,
    )
    at_once = concurrent_trials(sweep, given)
    return [f"{line}; {given.cpus:g} CPU and {given.gpus:g} GPU are there: {at_once} at once"]


def _arithmetic(sweep: SweepConfig, agents: float) -> str:
    steps, copies = fragment_length(sweep, agents), num_copies(sweep)
    batch = round(steps * copies * agents)
    minibatch = sweep.algorithm.minibatch or batch
    per_epoch = max(1, round(batch / max(1, sweep.cluster.num_learners) / minibatch))
    epochs = sweep.algorithm.passes
    return (
        f"{copies} copies x {steps} steps x {agents:g} agents = {batch:,} agent-steps an iteration; "
        f"{epochs} epochs x {per_epoch} minibatches = {epochs * per_epoch} gradient steps "
        "(of one shared module; independent ones share it out)"
    )


def _memory(sweep: SweepConfig, built: _Built) -> str:
    """Memory of the observations of one fragment, the largest part where agents see images.

    With a central critic, the states are counted too.
    """
    seen = sum(len(group.agents) * _bytes(group.observation_space) for group in built.groups)
    if CRITIC in built.modules:
        seen += _bytes(built.modules[CRITIC].observation_space)
    copies, steps = sweep.cluster.num_envs_per_env_runner, fragment_length(sweep, built.agents)
    where = "the trial's process" if sweep.cluster.num_env_runners == 0 else "each env runner"
    return f"{copies * (steps + 1) * seen / 1e6:,.1f} MB for the observations of a fragment, in {where}"


def _bytes(space: gym.Space) -> int:
    if isinstance(space, gym.spaces.Dict):
        return sum(_bytes(part) for part in space.values())
    return int(np.prod(space.shape or ())) * np.dtype(space.dtype).itemsize


def _limits(sweep: SweepConfig, agents: float) -> str:
    limits = {k: v for k, v in dataclasses.asdict(sweep.stop).items() if v is not None}
    text = ", ".join(f"{name} {value}" for name, value in limits.items())
    iterations = max_iterations(sweep)
    return text if iterations is None else f"{text}: at most {iterations} iterations a trial"


def _disk(sweep: SweepConfig, bytes_saved: int, trials: int) -> str:
    iterations = max_iterations(sweep)
    saves = math.inf if iterations is None else iterations // max(1, sweep.checkpoint.frequency or iterations)
    kept = (
        saves
        if sweep.checkpoint.num_to_keep is None
        else min(saves + sweep.checkpoint.at_end, sweep.checkpoint.num_to_keep)
    )
    each = f"about {bytes_saved / 1e6:.1f} MB a checkpoint"
    return (
        each
        if math.isinf(kept)
        else f"{each}, {kept:g} kept of each of {trials} trials: {bytes_saved * kept * trials / 1e6:.0f} MB"
    )
