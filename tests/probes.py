"""What several tests look through: a world that writes down what happens in it, and short ways into a trial."""

import torch

from marl_tune.build import build_policy_map, build_world, module_specs
from marl_tune.policy import Policies
from marl_tune.rollout import Rollout


def learner_of(trial):
    """The learner inside a trial that learns in its own process."""
    return trial._algorithm.learner_group._learner


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


def sampled(sweep, fragments, copies=3, policy_map=None, with_state=False):
    """Fragments of so many steps, the recorded world and the rollout; `policy_map`: world -> map, else the sweep's."""
    world = Recorder(build_world(sweep, copies))
    who = build_policy_map(sweep, world) if policy_map is None else policy_map(world)
    torch.manual_seed(0)
    modules = dict(module_specs(sweep, who).build().items())
    lengths = {m: module.model_config["max_seq_len"] for m, module in modules.items() if module.is_stateful()}
    rollout = Rollout(world, Policies(modules, who, copies, seed=1), lengths, seed=5, with_state=with_state)
    return [rollout.sample(steps) for steps in fragments], world, rollout
