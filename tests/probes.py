"""What several tests look through: a world that writes down what happens in it, and short ways into a trial."""

import numpy as np
import torch
from ray.rllib.utils.postprocessing.value_predictions import compute_value_targets

from marl_tune.sampling.policies import Policies
from marl_tune.sampling.rollout import Rollout
from marl_tune.sampling.turn_based.rollout import TurnRollout
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.module_specs import build_policy_map, module_specs


def learner_of(trial):
    """The learner inside a trial that learns in its own process."""
    return trial.algorithm.learner_group._learner


class Unwrapped:
    def __init__(self, module):
        self.module = module

    def unwrapped(self):
        return self.module


class Recorder:
    """A world that writes down each copy's transitions, episode by episode, as plain lists."""

    def __init__(self, world):
        self.world = world
        self.groups, self.num_envs = world.groups, world.num_envs
        self.episodes = [[] for _ in range(world.num_envs)]  # copy -> episodes -> transitions

    def reset(self, seeds=None, copies=None):
        self.seen = self.world.reset(seeds, copies)
        for copy in range(self.num_envs) if copies is None else copies:
            self.episodes[copy].append([])
        return self.seen

    def step(self, actions):
        before = {name: value.copy() for name, value in self.seen.items()}
        step = self.world.step(actions)
        self.seen = step.observations
        for copy in range(self.num_envs):
            transition = {
                "observation": {g: before[g][copy] for g in before},
                "action": {g: actions[g][copy].copy() for g in actions},
                "reward": {g: step.rewards[g][copy].copy() for g in step.rewards},
                "next": {g: step.observations[g][copy].copy() for g in before},
                "done": bool(step.terminated[copy] or step.truncated[copy]),
                "terminated": bool(step.terminated[copy]),
            }
            self.episodes[copy][-1].append(transition)
        return step

    def __getattr__(self, name):
        return getattr(self.world, name)


def policies_of(sweep, policy_map, copies, seed):
    """Freshly made modules that act, always the same, and the sequence lengths of those with a memory."""
    torch.manual_seed(0)
    modules = dict(module_specs(sweep, policy_map).build().items())
    lengths = {m: module.model_config["max_seq_len"] for m, module in modules.items() if module.is_stateful()}
    return Policies(modules, policy_map, copies, seed=seed), lengths


def turn_rollout(copies, seed, sweep):
    """A rollout in copies of a world whose agents take turns, die or join."""
    world = build_world(sweep, copies)
    return TurnRollout(world, *policies_of(sweep, build_policy_map(sweep, world), copies, seed), seed)


def targets_of(piece, values, gamma=0.97, lambda_=0.9):
    """RLlib's value targets of one piece, (T,), from values (T + 1,)."""
    return compute_value_targets(
        values=values,
        rewards=np.append(piece.rewards.data, 0.0),
        terminateds=np.array([False] * (len(piece) - 1) + [piece.is_terminated, False]),
        truncateds=np.array([False] * (len(piece) - 1) + [not piece.is_terminated, False]),
        gamma=gamma,
        lambda_=lambda_,
    )[:-1]


def sampled(sweep, fragments, copies=3, policy_map=None, with_state=False):
    """Fragments of so many steps, the recorded world and the rollout; `policy_map`: world -> map, else the sweep's."""
    world = Recorder(build_world(sweep, copies))
    who = build_policy_map(sweep, world) if policy_map is None else policy_map(world)
    policies, lengths = policies_of(sweep, who, copies, seed=1)
    rollout = Rollout(world, policies, lengths, seed=5, with_state=with_state)
    return [rollout.sample(steps) for steps in fragments], world, rollout
