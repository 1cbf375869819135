"""The state of a running VMAS environment as bytes, and back into an environment that was made with the same arguments.

Its objects do not pickle: they are full of lambdas, and a scenario is loaded from its file as a class without a module.
So what is saved is not the objects but what they hold. They are numbered when the environment has just been made, which
gives the same numbers in every environment of the same making; a reference is saved as the number of its object, all
else by its value. Tensors that share memory do so again afterwards.
"""

import io
import types
from collections import deque
from enum import Enum
from typing import Any

import numpy as np
import torch

from marl_tune.envs.world import StateUnavailable

MUTABLE = (list, dict, set, deque)
FIXED = (tuple, frozenset)
CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type)
REFERENCE = "numbered object"  # (REFERENCE, number) stands for one


class StateOf:
    """Saves and restores what the objects of one environment hold.

    Args:
        env: VMAS's environment, just made.
    """

    def __init__(self, env: Any):
        self._env = env
        self._objects: list[Any] = []  # kept alive, so that an id stands for one of them only
        self._numbers: dict[int, int] = {}  # id -> place in `_objects`
        waiting = [env.scenario, env.world]  # the last one first: agents and landmarks in the world's own order
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
        """What the environment holds now.

        Raises:
            StateUnavailable: if in the course of play it has made something that does not pickle.
        """
        buffer, held = io.BytesIO(), [self._saved(_content(thing)) for thing in self._objects]
        try:
            torch.save((self._env.steps, held), buffer)
        except Exception as error:  # whatever a class that is not to be found, a lambda or a __reduce__ raises
            raise StateUnavailable(f"{type(error).__name__}: {error}") from error
        return buffer.getvalue()

    def load(self, state: bytes) -> None:
        """Goes back to what `dump` returned, here or in another environment of the same making.

        Raises:
            ValueError: if that one was made otherwise; nothing has been changed then.
        """
        steps, held = torch.load(io.BytesIO(state), map_location=self._env.device, weights_only=False)
        if len(held) != len(self._objects) or steps.shape != self._env.steps.shape:
            raise ValueError(f"state of another world: {len(held)} objects, here {len(self._objects)}")
        self._env.steps = steps
        for thing, content in zip(self._objects, held, strict=True):
            _fill(thing, self._restored(content))

    def _saved(self, thing: Any) -> Any:
        """A value in which references stand for numbered objects; other containers are copied."""
        number = self._numbers.get(id(thing))
        return _mapped(thing, self._saved) if number is None else (REFERENCE, number)

    def _restored(self, thing: Any) -> Any:
        return self._objects[thing[1]] if _is_reference(thing) else _mapped(thing, self._restored)


def _is_reference(thing: Any) -> bool:
    return type(thing) is tuple and len(thing) == 2 and type(thing[0]) is str and thing[0] == REFERENCE


def _is_object(thing: Any) -> bool:
    """Whether it is more than a value: a container that can change, an instance with attributes, or code."""
    if isinstance(thing, np.ndarray | np.generic | Enum | torch.Tensor):
        return False
    return isinstance(thing, MUTABLE + CODE) or hasattr(thing, "__dict__")


def _content(thing: Any) -> Any:
    """The items or attributes of an object, in a new container; nothing of code."""
    if isinstance(thing, CODE):
        return None
    kind = next((kind for kind in MUTABLE if isinstance(thing, kind)), None)
    return dict(vars(thing)) if kind is None else kind(thing)


def _fill(thing: Any, content: Any) -> None:
    """Puts back what `_content` returned."""
    if content is None:
        return
    target = thing if isinstance(thing, MUTABLE) else vars(thing)
    target.clear()
    (target.update if isinstance(target, dict | set) else target.extend)(content)


def _parts(thing: Any) -> list[Any]:
    """What an object or a fixed container refers to."""
    if isinstance(thing, types.MethodType):
        return [thing.__self__]
    content = thing if type(thing) in FIXED else _content(thing)
    return [*content, *content.values()] if isinstance(content, dict) else list(content or ())


def _mapped(thing: Any, function: Any) -> Any:
    """A container with a function applied to what is in it; anything else as it is."""
    kind = type(thing)
    if kind is dict:
        return {function(key): function(value) for key, value in thing.items()}
    return kind(map(function, thing)) if kind in MUTABLE + FIXED else thing
