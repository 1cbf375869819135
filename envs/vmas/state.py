"""Saves the state of a running VMAS environment as bytes, and restores it in an environment made with equal arguments.

The objects of VMAS do not pickle: they are full of lambdas, and a scenario's class has no module. So the contents of
the objects are saved, not the objects. The objects are numbered when the environment has just been made. This gives the
same numbers in each environment that is made with equal arguments. A reference is saved as the number of its object,
everything else by its value. Tensors that share memory share it again after loading.
"""

import io
import types
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch

from marl_tune.envs.world import StateUnavailable

if TYPE_CHECKING:
    from vmas.simulator.environment import Environment  # type: ignore[import-untyped]

MUTABLE = (list, dict, set, deque)
FIXED = (tuple, frozenset)
CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type)
REFERENCE = "numbered object"  # (REFERENCE, number) stands for the object of that number


class StateOf:
    """Saves and restores the contents of all objects of one environment.

    Args:
        env: VMAS's environment; it has just been made.
    """

    def __init__(self, env: "Environment"):
        self._env = env
        self._objects: list[object] = []  # kept alive, so that an id belongs to one of them only
        self._numbers: dict[int, int] = {}  # id -> place in `_objects`
        waiting: list[object] = [env.scenario, env.world]  # the world first, so that its entities keep their order
        while waiting:
            thing = waiting.pop()
            if id(thing) in self._numbers:
                continue
            if _is_object(thing):
                self._numbers[id(thing)] = len(self._objects)
                self._objects.append(thing)
            elif type(thing) not in FIXED:
                continue
            waiting.extend(reversed(_parts(thing)))

    def dump(self) -> bytes:
        """The present state of the environment.

        Raises:
            StateUnavailable: if an object made since then does not pickle.
        """
        buffer, held = io.BytesIO(), [self._saved(_content(thing)) for thing in self._objects]
        try:
            torch.save((self._env.steps, held), buffer)
        except Exception as error:  # a lambda, a class without a module or a `__reduce__` may raise anything
            raise StateUnavailable(f"{type(error).__name__}: {error}") from error
        return buffer.getvalue()

    def load(self, state: bytes) -> None:
        """Restores a state that `dump` returned, here or in another environment that was made with equal arguments.

        Raises:
            ValueError: if that environment was made with other arguments. Nothing is changed then.
        """
        steps, held = torch.load(io.BytesIO(state), map_location=self._env.device, weights_only=False)
        if len(held) != len(self._objects) or steps.shape != self._env.steps.shape:
            raise ValueError(f"state of another world: {len(held)} objects, here {len(self._objects)}")
        self._env.steps = steps
        for thing, content in zip(self._objects, held, strict=True):
            _fill(thing, self._restored(content))

    def _saved(self, thing: object) -> object:
        """A copy of a value in which references stand for the numbered objects."""
        number = self._numbers.get(id(thing))
        return _mapped(thing, self._saved) if number is None else (REFERENCE, number)

    def _restored(self, thing: object) -> object:
        return self._objects[thing[1]] if _is_reference(thing) else _mapped(thing, self._restored)


def _is_reference(thing: object) -> TypeGuard[tuple[str, int]]:
    return type(thing) is tuple and len(thing) == 2 and type(thing[0]) is str and thing[0] == REFERENCE


def _is_object(thing: object) -> bool:
    """Whether it is saved as an object, not as a value: a mutable container, an instance with attributes, or code."""
    if isinstance(thing, np.ndarray | np.generic | Enum | torch.Tensor):
        return False
    return isinstance(thing, MUTABLE + CODE) or hasattr(thing, "__dict__")


def _content(thing: Any) -> Any:
    """A new container with the items or attributes of an object; None for code."""
    if isinstance(thing, CODE):
        return None
    kind = next((kind for kind in MUTABLE if isinstance(thing, kind)), None)
    return dict(vars(thing)) if kind is None else kind(thing)


def _fill(thing: object, content: Any) -> None:
    """Restores the items or attributes that `_content` returned."""
    if content is None:
        return
    target: Any = thing if isinstance(thing, MUTABLE) else vars(thing)
    target.clear()
    (target.update if isinstance(target, dict | set) else target.extend)(content)


def _parts(thing: object) -> list[object]:
    """The objects to which an object or an immutable container refers."""
    if isinstance(thing, types.MethodType):
        return [thing.__self__]
    content: Any = thing if type(thing) in FIXED else _content(thing)
    return [*content, *content.values()] if isinstance(content, dict) else list(content or ())


def _mapped(thing: Any, function: Callable[[object], object]) -> object:
    """A container with the function applied to its items; a value that is no container as it is."""
    kind = type(thing)
    if kind is dict:
        return {function(key): function(value) for key, value in thing.items()}
    return kind(map(function, thing)) if kind in MUTABLE + FIXED else thing
