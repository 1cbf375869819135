"""Every registered world keeps the contract of `World`; and the checker rejects worlds that break it."""

from dataclasses import fields, replace
from importlib import import_module
from inspect import isabstract
from pathlib import Path

import numpy as np
import pytest

from marl_tune import envs
from marl_tune.envs.ant_colony import AntColony, AntColonyConfig
from marl_tune.envs.testing import ContractError, check_world, sample_actions
from marl_tune.envs.world import World

SHORT = 25  # steps of an episode, where a world has a limit to shorten
LIMITS = ("max_steps", "max_cycles")  # what a world may call that limit


def short_config(name):
    config = envs.default_config(name)
    return replace(config, **{limit: SHORT for limit in LIMITS if hasattr(config, limit)})


@pytest.mark.parametrize("name", envs.ENVS)
def test_world_keeps_the_contract(name):
    check_world(lambda copies: envs.make_world(short_config(name), copies), steps=3 * SHORT)


@pytest.mark.parametrize("name", envs.ENVS.own)
def test_one_stem_names_file_class_config_and_values(name):
    cls, config = envs.env_class(name), envs.config_class(name)
    assert issubclass(cls, World)
    place = f"marl_tune.envs.{name.replace('/', '.')}"  # a file, or a folder that hands on what its world.py has
    assert cls.__module__ in (place, f"{place}.world")
    assert cls.__name__ == "".join(part.capitalize() for part in name.rpartition("/")[2].split("_"))
    assert getattr(import_module(place), cls.__name__) is cls
    assert getattr(import_module(place), f"{cls.__name__}Config") is config
    assert fields(config)[0].name == "name"
    assert envs.default_config(name).name == name


def test_every_file_with_a_world_is_registered():
    found, folder = set(), Path(envs.__file__).parent
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        module = import_module(".".join(("marl_tune", *parts)).removesuffix(".__init__"))
        worlds = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, World)]
        # A world that can be chosen has a config; `WorkerWorld` is made of one that was.
        chosen = [cls for cls in worlds if hasattr(cls, "Config") and not isabstract(cls)]
        found |= {f"{cls.__module__.removesuffix('.world')}:{cls.__name__}" for cls in chosen}
    assert found == {option.place for option in envs.ENVS.own.values()}
    assert set(envs.BASELINES) <= set(envs.ENVS)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"env\.name must be .*ant_colony.*'ant_colonies'"):
        envs.env_class("ant_colonies")
    with pytest.raises(ValueError, match="baseline"):
        envs.baseline_class("nothing")


@pytest.mark.parametrize("name", envs.BASELINES)
def test_baseline_beats_random_play(name):
    def mean_return(act, world):
        observations, total = world.reset(list(range(world.num_envs))), np.zeros(world.num_envs)
        alive = np.ones(world.num_envs, bool)
        while alive.any():
            step = world.step(act(observations))
            total += alive * sum(reward.sum(axis=1) for reward in step.rewards.values())
            observations, alive = step.observations, alive & ~(step.terminated | step.truncated)
        return total.mean()

    world = envs.make_world(envs.default_config(name), 8)
    rng = np.random.default_rng(0)
    scripted = mean_return(envs.baseline_class(name)(world).act, world)
    assert scripted > mean_return(lambda observations: sample_actions(world, observations, rng), world)


# --- worlds that break one rule each ---


class Unseeded(AntColony):
    def reset(self, seeds=None, copies=None):
        return super().reset(None, copies)


class GlobalRandom(AntColony):
    def step(self, actions):
        step = super().step(actions)
        step.rewards["ants"] += np.float32(np.random.rand())
        return step


class OneGenerator(AntColony):
    def reset(self, seeds=None, copies=None):
        observations = super().reset(seeds, copies)
        self._rngs = self._rngs[:1] * self.num_envs
        return observations


class WrongObservationType(AntColony):
    def observe(self):
        return {"ants": super().observe()["ants"].astype(np.float64)}


class OutsideItsSpace(AntColony):
    def observe(self):
        return {"ants": super().observe()["ants"] * np.float32(2.0)}


class ReusesItsArray(AntColony):
    def observe(self):
        if not hasattr(self, "_out"):
            self._out = np.empty((self.num_envs, self.config.n_agents, 9), np.float32)
        np.copyto(self._out, super().observe()["ants"])
        return {"ants": self._out}


class WrongRewardType(AntColony):
    def step(self, actions):
        step = super().step(actions)
        step.rewards["ants"] = step.rewards["ants"].astype(np.float64)
        return step


class RewardPerCopy(AntColony):
    def step(self, actions):
        step = super().step(actions)
        step.rewards["ants"] = step.rewards["ants"].sum(axis=1)
        return step


class EndsTwice(AntColony):
    def step(self, actions):
        step = super().step(actions)
        step.terminated = step.terminated | step.truncated
        return step


class NeverEnds(AntColony):
    def step(self, actions):
        step = super().step(actions)
        step.truncated[:] = step.terminated[:] = False
        return step


class KeepsPheromone(AntColony):
    def reset(self, seeds=None, copies=None):
        kept = self.pheromone.copy()
        super().reset(seeds, copies)
        self.pheromone[:] = kept
        return self.observe()


class ResetsAll(AntColony):
    def reset(self, seeds=None, copies=None):
        if copies is not None:
            super().reset(None, None)
        return super().reset(seeds, copies)


class MixesCopies(AntColony):
    def step(self, actions):
        step = super().step(actions)
        step.rewards["ants"] += np.float32(0.001) * self.delivered.sum() + np.float32(0.001) * self.num_envs
        return step


class ForgetsGenerators(AntColony):
    def get_state(self):
        return super().get_state() | {"generators": [np.random.default_rng(0).bit_generator.state] * self.num_envs}


class SharesItsState(AntColony):
    def get_state(self):
        return super().get_state() | {"arrays": self._arrays()}


class RenderMoves(AntColony):
    def render(self, copy=0):
        self.pheromone *= 0.5
        return super().render(copy)


class RenderFloat(AntColony):
    def render(self, copy=0):
        return super().render(copy) / 255


class MetricIsNan(AntColony):
    def episode_metrics(self, copies):
        return super().episode_metrics(copies) | {"ratio": np.full(len(copies), np.nan)}


class WrongTokens(AntColony):
    def __init__(self, config, num_envs=1):
        super().__init__(config, num_envs)
        group = self.groups[0]
        self.groups = (replace(group, tokens=replace(group.tokens, indices=(3, 4, 5, 9))),)


SMALL = AntColonyConfig("ant_colony", [6, 7], 4, 3, 2, None, 0.2, 0.9, SHORT)
BROKEN = {
    Unseeded: "same play again",
    GlobalRandom: "same play again",
    OneGenerator: "differs from a world of one copy",
    WrongObservationType: "is float64, its space float32",
    OutsideItsSpace: "outside its space",
    ReusesItsArray: "writes into observations",
    WrongRewardType: "rewards of ants are float64",
    RewardPerCopy: "rewards of ants have the shape",
    EndsTwice: "both terminated and truncated",
    NeverEnds: "no episode ended",
    KeepsPheromone: "same play again",
    ResetsAll: "reset of copy 1 alone",
    MixesCopies: "differs from a world of one copy",
    ForgetsGenerators: "after set_state the play differs",
    SharesItsState: "goes on writing",
    RenderMoves: "render changes the world",
    RenderFloat: "render must return",
    MetricIsNan: "metric ratio is not finite",
    WrongTokens: "tokens outside its observation",
}


@pytest.mark.parametrize("world", BROKEN, ids=lambda cls: cls.__name__)
def test_checker_rejects_a_broken_world(world):
    with pytest.raises(ContractError, match=BROKEN[world]):
        check_world(lambda copies: world(SMALL, copies), steps=60)


def test_checker_accepts_the_world_that_the_broken_ones_are_made_of():
    check_world(lambda copies: AntColony(SMALL, copies), steps=60)


class StateOfAllCopies(AntColony):
    def state(self, observations):
        return super().state(observations) * np.float32(1.0 / self.num_envs)


class StateOfAnotherShape(AntColony):
    def state(self, observations):
        return super().state(observations)[:, 1:]


class StateIsReused(AntColony):
    def state(self, observations):
        self.__dict__.setdefault("_kept", np.empty((self.num_envs, 36), np.float32))[...] = super().state(observations)
        return self._kept

    def step(self, actions):
        step = super().step(actions)
        self.state(step.observations)
        return step


@pytest.mark.parametrize(
    ("world", "rule"),
    [
        (StateOfAllCopies, "differs from a world of one copy"),
        (StateOfAnotherShape, "state has the shape"),
        (StateIsReused, "writes into observations"),
    ],
)
def test_checker_rejects_a_broken_state(world, rule):
    with pytest.raises(ContractError, match=rule):
        check_world(lambda copies: world(SMALL, copies), steps=60)
