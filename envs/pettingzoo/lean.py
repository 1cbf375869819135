"""Worlds of PettingZoo that step several times faster here, with the same results bit by bit.

A world is made lean by giving that one instance a subclass of its class, in which the slow methods are other ones. No
class and no module of PettingZoo stays changed, and a copy that `snapshots.py` makes of the instance is lean too.
"""

import importlib
from typing import Any

import pettingzoo

MADE_FOR = "1.25."  # beginning of the version of PettingZoo whose worlds these are
LEAN = {
    "pettingzoo.sisl.waterworld.waterworld.raw_env": ".lean_waterworld",
    "pettingzoo.butterfly.knights_archers_zombies.knights_archers_zombies.raw_env": ".lean_zombies",
}  # class of a world -> module with a function lean(world), which leaves a world alone that it does not suit


def made_lean(env: Any) -> Any:
    """The same `env`; the world inside is lean from now on if there is a way to make it so."""
    world = getattr(env, "unwrapped", env)
    place = LEAN.get(f"{type(world).__module__}.{type(world).__qualname__}")
    if place and pettingzoo.__version__.startswith(MADE_FOR):
        importlib.import_module(place, __package__).lean(world)
    return env


def has_all(world: Any, names: tuple[str, ...]) -> bool:
    """Whether the world has all attributes of these names."""
    return all(hasattr(world, name) for name in names)
