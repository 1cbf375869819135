"""Small PettingZoo worlds, each with one trait that tests need: `env.id=pettingzoo_probes +env.kwargs.probe=masked`."""

import os
import signal
import sys
import time
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from pettingzoo import ParallelEnv


class Walkers(ParallelEnv):
    """Agents that drift; an episode has 3 to 8 steps, drawn at its start, and terminates when it has an even number.

    Every array that it hands out is one and the same, written anew.
    """

    metadata: ClassVar = {"name": "walkers", "render_modes": ["rgb_array"]}
    names = ("walker_0", "walker_1", "walker_2")
    observed = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    acted = gym.spaces.Discrete(3)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.possible_agents = list(self.names)
        self.rng = np.random.default_rng()
        self._seen = np.zeros((len(self.names), 4), np.float32)

    def observation_space(self, agent):
        return self.observed

    def action_space(self, agent):
        return self.acted

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.length, self.time = int(self.rng.integers(3, 9)), 0
        self.places = self.rng.normal(size=len(self.names))
        return self.observe(), {agent: {} for agent in self.agents}

    def observe(self):
        self._seen[:] = np.stack([np.append(self.rng.normal(size=3), place) for place in self.places])
        return {agent: self._seen[self.names.index(agent)] for agent in self.agents}

    def step(self, actions):
        self.time += 1
        self.places += [float(np.sum(actions[agent])) if agent in actions else 0.0 for agent in self.names]
        observations = self.observe()
        ended, even = self.time == self.length, self.length % 2 == 0
        flags = dict.fromkeys(self.agents, ended and even), dict.fromkeys(self.agents, ended and not even)
        rewards = {agent: float(self.places[self.names.index(agent)]) for agent in self.agents}
        infos = {agent: {"time": self.time, "place": rewards[agent], "who": agent} for agent in self.agents}
        if ended:
            self.agents = []
        return observations, rewards, *flags, infos

    def render(self):
        return np.full((5, 7, 3), self.time, np.uint8)


class Masked(Walkers):
    """A Dict observation with an action mask that forbids one action, another in each step."""

    observed = gym.spaces.Dict(
        observation=gym.spaces.Box(-np.inf, np.inf, (4,), np.float32), action_mask=gym.spaces.Box(0, 1, (3,), np.int8)
    )

    def observe(self):
        mask = np.ones(3, np.int8)
        mask[self.time % 3] = 0
        return {agent: {"observation": seen, "action_mask": mask} for agent, seen in super().observe().items()}

    def step(self, actions):
        forbidden = self.time % 3
        assert all(action != forbidden for action in actions.values())
        return super().step(actions)


class Camera(Walkers):
    """Pixels that move only where the picture is drawn, as in some of PettingZoo's own worlds."""

    observed = gym.spaces.Box(0, 255, (6, 5, 3), np.uint8)

    def observe(self):
        pixels = self.rng.integers(0, 256, (6, 5, 3), np.uint8) * (self.render_mode == "rgb_array")
        return {agent: pixels + np.uint8(index) for index, agent in enumerate(self.agents)}


class Mixed(Walkers):
    """Two kinds of agents in turn, and among the guards one with another action space."""

    names = ("guard_0", "scout_0", "guard_1", "scout_1", "guard_2", "boss")

    def action_space(self, agent):
        if agent == "guard_2":
            return gym.spaces.Box(-1, 1, (2,), np.float32)
        return gym.spaces.Discrete(4, start=2) if agent == "boss" else gym.spaces.MultiDiscrete([3, 2])

    def step(self, actions):
        assert list(actions) == list(self.names)
        for agent, action in actions.items():
            assert self.action_space(agent).contains(action)
            if agent != "boss":
                action *= 2  # a world may write to what it was given
        return super().step(actions)


class Leaver(Walkers):
    """An agent is gone after the second step."""

    def step(self, actions):
        step = super().step(actions)
        if self.time == 2:
            self.agents.remove("walker_1")
            for part in step:
                del part["walker_1"]
        return step


class Joiner(Walkers):
    """Somebody comes in the second step."""

    def step(self, actions):
        step = super().step(actions)
        if self.time == 2:
            self.agents.append("guest")
            step[0]["guest"] = step[0]["walker_0"]
        return step


class Mortals(Walkers):
    """The agents die one after the other, the first in the first step, the second cut off; each is paid at its end."""

    def step(self, actions):
        acted = list(self.agents)
        step = super().step(actions)
        present = [{agent: part[agent] for agent in acted} for part in step]
        if self.agents:
            leaver = self.agents.pop(0)
            present[1][leaver] += 10.0
            present[2 if leaver != "walker_1" else 3][leaver] = True
        return tuple(present)


class Late(Mortals):
    """Only the first agent is there at the start; the others come in the first step, and then they die in turn."""

    def reset(self, seed=None, options=None):
        super().reset(seed, options)
        self.agents = ["walker_0"]
        return self.observe(), {"walker_0": {}}

    def step(self, actions):
        if self.time > 0:
            return super().step(actions)
        self.agents = list(self.possible_agents)
        return Walkers.step(self, actions)


class Returner(Mortals):
    """Somebody comes back from the dead."""

    def step(self, actions):
        step = super().step(actions)
        if self.time == 2:
            self.agents.append("walker_0")
        return step


class Uneven(Walkers):
    """In the second step one agent is done and the others are not."""

    def step(self, actions):
        step = super().step(actions)
        step[2]["walker_2"] = self.time == 2
        return step


class Failing(Walkers):
    """Does something bad in a step of its own choice, in any copy that started from seed `seed`."""

    def __init__(self, how, seed=0, at=2, render_mode=None):
        super().__init__(render_mode)
        self.how, self.bad, self.at = how, seed, at

    def reset(self, seed=None, options=None):
        self.is_bad = seed == self.bad
        return super().reset(seed, options)

    def step(self, actions):
        if self.is_bad and self.time + 1 == self.at:
            if self.how == "raise":
                raise ZeroDivisionError("the probe gave up")
            if self.how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "exit":
                sys.exit(3)
            time.sleep(60)
        return super().step(actions)


class Unpicklable(Walkers):
    """Holds what does not pickle."""

    def __init__(self):  # nor does it know of render_mode
        super().__init__()
        self.secret = lambda: None


class ByArguments(EzPickle, Walkers):
    """Pickles by the arguments of its constructor, so that its copy would be a new world."""

    def __init__(self, render_mode=None):
        EzPickle.__init__(self, render_mode)
        Walkers.__init__(self, render_mode)


class Nosy(Walkers):
    """Tells in its infos which of some modules its process has imported."""

    def step(self, actions):
        *step, _ = super().step(actions)
        loaded = {name: name in sys.modules for name in ("torch", "ray", "numpy", "pettingzoo_probes")}
        beyond = {"marl_tune", "marl_tune.registry"}  # which every world needs
        loaded["marl_tune"] = any(
            n.startswith("marl_tune") and not n.startswith("marl_tune.envs") and n not in beyond for n in sys.modules
        )
        return *step, dict.fromkeys(self.names, loaded)


class Unseen(Walkers):
    """An observation that is no array."""

    observed = gym.spaces.Discrete(3)


class Spoken(Walkers):
    """An action that is no number."""

    acted = gym.spaces.Text(3)


class Unlisted(Walkers):
    """Does not say who its agents are."""

    names = ()


def parallel_env(probe="walkers", **kwargs):
    """The probe of that name, in lower case."""
    return {cls.__name__.lower(): cls for cls in (Walkers, *_subclasses())}[probe](**kwargs)


def _subclasses():
    return [value for value in globals().values() if isinstance(value, type) and issubclass(value, Walkers)]
