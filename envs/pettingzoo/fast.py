"""Faster versions of slow PettingZoo worlds, with the same results bit by bit.

To accelerate one instance, its class is replaced by a subclass that overrides the slow methods. No class and no module
of PettingZoo is changed. A copy that `snapshots.py` makes of the instance is fast, too.
"""

import importlib

import pettingzoo

from marl_tune.envs.pettingzoo.api_types import Env

MADE_FOR = "1.25."  # worlds of PettingZoo versions that begin so are accelerated, no others
FAST_WORLDS = {
    "pettingzoo.sisl.waterworld.waterworld.raw_env": ".fast_waterworld",
    "pettingzoo.butterfly.knights_archers_zombies.knights_archers_zombies.raw_env": ".fast_zombies",
}  # class of a world -> module with a function `accelerate(world)`, which leaves a world that it does not suit as it is


def accelerate(env: Env) -> Env:
    """Makes the world inside `env` faster, if it is one of `FAST_WORLDS`. Returns the same `env`."""
    world = getattr(env, "unwrapped", env)
    place = FAST_WORLDS.get(f"{type(world).__module__}.{type(world).__qualname__}")
    if place and pettingzoo.__version__.startswith(MADE_FOR):
        importlib.import_module(place, __package__).accelerate(world)
    return env


def has_all(world: object, names: tuple[str, ...]) -> bool:
    """Whether the world has all attributes of these names."""
    return all(hasattr(world, name) for name in names)
