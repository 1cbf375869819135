"""From `env.id` to an instance of a PettingZoo world: imports its module, makes an instance, explains errors.

| id | module |
|---|---|
| mpe/simple_spread_v3 | pettingzoo.mpe.simple_spread_v3: with a slash it is one of PettingZoo's own |
| my_package.my_env | the user's, from the Python path or the working directory |
"""

import difflib
import importlib
import importlib.util
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from marl_tune.envs.pettingzoo.api_types import Env

EXTRA = ("Box2D", "chess", "pygame", "pymunk", "rlcard", "supersuit")
# modules that PettingZoo's worlds and their preprocessing need; pip install "marl-tune[envs]" brings them
SILENT = {
    "SDL_VIDEODRIVER": "dummy",  # pictures are drawn in memory: no window, and no screen needed
    "SDL_AUDIODRIVER": "dummy",  # no complaints on stderr about a missing sound card
    "SDL_NO_SIGNAL_HANDLERS": "1",  # without it a process that has started pygame survives SIGTERM
}  # environment variables that pygame reads when it starts; those that are set stay
NOISE = (
    (UserWarning, "The system font '.*' couldn't be found"),  # pursuit's, which is drawn in another one
    (UserWarning, ".*precision lowered by casting to float32"),  # texas_holdem_no_limit's bounds
)  # kinds and beginnings of warnings of PettingZoo's own worlds about which nothing can be done here


def import_world(world_id: str) -> ModuleType:
    """The module that `env.id` names.

    Raises:
        ValueError: if there is no such module, or importing it fails; names the package that is missing if one is.
    """
    name = f"pettingzoo.{world_id.replace('/', '.')}" if "/" in world_id else world_id
    for variable, value in SILENT.items():
        os.environ.setdefault(variable, value)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as `python -m` does; other ways to start do not
    try:
        with warnings.catch_warnings():
            # pettingzoo.mpe and its worlds say that they will move, Box2D's classes that they know no module of theirs
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if f"{name}.".startswith(f"{missing}."):
            raise ValueError(f"env.id must name a module, got {world_id!r}: {_not_found(world_id, missing)}") from error
        raise _package_missing(world_id, missing) from error
    except Exception as error:
        raise ValueError(f"env.id={world_id} cannot be imported: {type(error).__name__}: {error}") from error


def make_env(world_id: str, kwargs: Mapping[str, object]) -> tuple[Env, bool]:
    """Makes one instance of the world: of PettingZoo's parallel API if the module offers it, else of the turn-based
    one.

    The instance gets `render_mode="rgb_array"`, if it has such an argument. Some worlds (butterfly/pistonball_v6,
    butterfly/cooperative_pong_v5) observe the picture that they draw, and draw none without it. The other worlds draw
    only when they are asked to, so that it costs them nothing.

    Returns:
        The instance, and whether it is turn-based.

    Raises:
        ValueError: if there is no such world, it has neither API, or it does not take `kwargs`.
    """
    module = import_world(world_id)
    make = getattr(module, "parallel_env", None) or getattr(module, "env", None)
    if make is None:
        raise ValueError(f"env.id must name a module with parallel_env(**kwargs) or env(**kwargs), got {world_id!r}")
    _check_physics(world_id)
    try:
        with silenced():
            env = _call(make, dict(kwargs))
    except ModuleNotFoundError as error:
        raise _package_missing(world_id, error.name or str(error)) from error
    except Exception as error:
        rule = f"hold arguments that {world_id} takes"
        raise ValueError(f"env.kwargs must {rule}, got {dict(kwargs)!r}: {type(error).__name__}: {error}") from error
    if not getattr(env, "possible_agents", None):
        raise ValueError(f"env.id must name a world that lists its agents in possible_agents, got {world_id!r}")
    from marl_tune.envs.pettingzoo.fast import accelerate
    from marl_tune.envs.pettingzoo.unchecked import without_checks  # these import pettingzoo

    return accelerate(without_checks(env)), not hasattr(module, "parallel_env")


@contextmanager
def silenced() -> Iterator[None]:
    """Suppresses the warnings in `NOISE`."""
    with warnings.catch_warnings():
        for kind, message in NOISE:
            warnings.filterwarnings("ignore", message, kind)
        yield


def _call(make: Callable[..., Env], kwargs: dict[str, object]) -> Env:
    try:
        return make(**({"render_mode": "rgb_array"} | kwargs))
    except Exception as error:
        if "render_mode" in kwargs or "render_mode" not in str(error):
            raise
    return make(**kwargs)


def _package_missing(world_id: str, missing: str) -> ValueError:
    """The error for a world that needs a module (a dotted name) of a package that is not installed."""
    package = missing.partition(".")[0]
    cure = ': pip install "marl-tune[envs]"' if package in EXTRA else ""
    return ValueError(f"env.id={world_id} needs the package {package!r}, which is not installed{cure}")


def _check_physics(world_id: str) -> None:
    """Raises ValueError for waterworld if the installed pymunk lacks the method that its first reset calls."""
    pymunk: Any = sys.modules.get("pymunk")
    if world_id.startswith("sisl/waterworld") and pymunk and not hasattr(pymunk.Space, "add_collision_handler"):
        raise ValueError(f'env.id={world_id} needs pymunk below 7, got {pymunk.version}: pip install "pymunk<7"')


def _not_found(world_id: str, missing: str) -> str:
    """The explanation for an id whose part `missing` (a dotted name) does not exist."""
    if "/" not in world_id:
        return "it is neither on the Python path nor in the working directory (PettingZoo's own have a slash)"
    family, _, name = world_id.partition("/")
    if missing == f"pettingzoo.{family}":
        return "the families are butterfly, classic, mpe and sisl"
    worlds = [world for world in _submodules(f"pettingzoo.{family}") if "_v" in world]
    near = difflib.get_close_matches(name, worlds, n=1)
    return f"did you mean {family}/{near[0]}?" if near else f"pettingzoo.{family} has {', '.join(worlds)}"


def _submodules(package: str) -> list[str]:
    """Names of the public modules directly in a package."""
    spec = importlib.util.find_spec(package)
    paths = spec.submodule_search_locations if spec is not None else None
    return sorted(name for _, name, _ in pkgutil.iter_modules(paths or []) if not name.startswith("_"))
