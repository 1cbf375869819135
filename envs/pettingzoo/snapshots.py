"""A running simulation of another library as bytes, for worlds whose state is an object and not a few arrays.

Plain pickle is wrong for the worlds of PettingZoo, for two reasons. Most derive from gymnasium's `EzPickle`, which
pickles the arguments of the constructor: unpickling gives a *new* world, without any warning. And most hold surfaces of
pygame, which do not pickle at all. Here an EzPickle is saved attribute by attribute, and a surface by its pixels.

Our own classes and functions are saved under the names in `OURS`, which stay when a class is renamed or a file is
moved. Their attributes are saved under the attributes' own names: an attribute of these classes keeps its name, or
snapshots in older checkpoints cannot be loaded.
"""

import copyreg
import importlib
import io
import pickle
import sys
import zlib
from abc import ABCMeta
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias

from gymnasium.utils import EzPickle

from marl_tune.envs.world import StateUnavailable

if TYPE_CHECKING:
    import pygame

Reduction: TypeAlias = Any  # what `pickle.Pickler.reducer_override` may return: a tuple, or NotImplemented

FAST = 1  # level of compression: even this one shrinks pictures by a factor of 100
OURS = {
    "fixed_team": "marl_tune.envs.pettingzoo.teams:FixedTeam",
    "changing_team": "marl_tune.envs.pettingzoo.teams:ChangingTeam",
    "turn_team": "marl_tune.envs.pettingzoo.teams:TurnTeam",
    "cycle": "marl_tune.envs.pettingzoo.unchecked:UncheckedParallelEnv",
    "lean_waterworld": "marl_tune.envs.pettingzoo.fast_waterworld:FastWaterworld",
    "lean_zombies": "marl_tune.envs.pettingzoo.fast_zombies:FastZombies",
    "preprocess": "marl_tune.envs.pettingzoo.preprocess_settings:PreprocessConfig",
    "preprocessed_parallel": "marl_tune.envs.pettingzoo.preprocessing:PreprocessedParallelEnv",
    "preprocessed_turns": "marl_tune.envs.pettingzoo.preprocessing:PreprocessedTurnEnv",
    "sight": "marl_tune.envs.pettingzoo.observation_changes:ObservationPipeline",
    "stack": "marl_tune.envs.pettingzoo.observation_changes:Stack",
    "luminance": "marl_tune.envs.pettingzoo.observation_changes:_luminance",
    "normalised": "marl_tune.envs.pettingzoo.observation_changes:_normalised",
    "filled_up": "marl_tune.envs.pettingzoo.observation_changes:_filled_up",
    "appended": "marl_tune.envs.pettingzoo.observation_changes:_appended",
    "set_attributes": "marl_tune.envs.pettingzoo.snapshots:_set_attributes",
    "make_surface": "marl_tune.envs.pettingzoo.snapshots:_make_surface",
}  # name in a snapshot, which never changes -> where it is now
KINDS = frozenset((type, ABCMeta, FunctionType))  # types of the classes and functions in `OURS`
NAMES = {place: name for name, place in OURS.items()}


def dump(simulation: object) -> bytes:
    """The object, and all objects that it refers to, as bytes.

    Raises:
        StateUnavailable: if a part of it does not pickle, e.g. the physics of Box2D.
    """
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(simulation)
    except Exception as error:  # whatever a class in C, a lambda or a __reduce__ of the user's raises
        raise StateUnavailable(f"{type(error).__name__}: {error}") from error
    return zlib.compress(buffer.getvalue(), FAST)


def load(snapshot: bytes) -> Any:
    """The object that was given to `dump`, in the state of that time."""
    return _Unpickler(io.BytesIO(zlib.decompress(snapshot))).load()


class _Pickler(pickle.Pickler):
    def persistent_id(self, part: Any) -> str | None:
        return NAMES.get(f"{part.__module__}:{part.__qualname__}") if type(part) in KINDS else None

    def reducer_override(self, part: Any) -> Reduction:
        if isinstance(part, EzPickle):
            return copyreg.__newobj__, (type(part),), vars(part), None, None, _set_attributes  # type: ignore[attr-defined]
        library = type(part).__module__.partition(".")[0]
        if library == "pymunk" and type(part).__name__ == "Space":
            raise pickle.PicklingError("pymunk's Space comes back without its contacts and moves on differently")
        return _reduce_pygame(part) if library == "pygame" else NotImplemented


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, name: str) -> type | FunctionType:
        return part_named(name)


def part_named(name: str) -> type | FunctionType:
    """The class or function of ours that a name in a snapshot stands for.

    Raises:
        UnpicklingError: if there is none of that name: the snapshot is of another version.
    """
    if name not in OURS:
        raise pickle.UnpicklingError(f"a snapshot of another version, with a {name!r}")
    module, _, part = OURS[name].partition(":")
    return getattr(importlib.import_module(module), part)


def _set_attributes(part: object, attributes: dict[str, object]) -> None:
    vars(part).update(attributes)


def _reduce_pygame(part: Any) -> Reduction:
    """How to make an object of pygame again. A surface that shares its pixels or has a palette cannot be pickled."""
    pygame, kind = sys.modules["pygame"], type(part).__name__
    if kind == "Surface" and part.get_parent() is None and part.get_bitsize() >= 24:
        form = part.get_size(), part.get_flags() & pygame.SRCALPHA, part.get_bitsize(), part.get_masks()
        return _make_surface, (form, part.get_buffer().raw, part.get_colorkey(), part.get_alpha())
    if kind == "Font" and hasattr(part, "path"):  # of pygame.freetype; one of pygame.font does not know its file
        return type(part), (part.path, part.size)
    return (type(part), ()) if kind == "Clock" else NotImplemented


def _make_surface(
    form: tuple[Any, ...], pixels: bytes, colorkey: tuple[int, ...] | None, alpha: int | None
) -> "pygame.Surface":
    import pygame  # only here: a world without surfaces does not need it

    surface = pygame.Surface(*form)
    surface.get_buffer().write(pixels, 0)
    if colorkey is not None:
        surface.set_colorkey(colorkey)
    if alpha is not None:
        surface.set_alpha(alpha)
    return surface
