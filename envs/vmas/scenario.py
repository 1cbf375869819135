"""From `env.scenario` to an environment of VMAS: imports the library, makes an environment, explains errors.

VMAS (https://github.com/proroklab/VectorizedMultiAgentSimulator) is optional: pip install "marl-tune[vmas]" brings it.
"""

import contextlib
import difflib
import importlib
import importlib.util
import io
import os
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from marl_tune.envs.vmas.seeding import draws_from

if TYPE_CHECKING:
    from vmas.simulator.environment import Environment  # type: ignore[import-untyped]

CURE = 'pip install "marl-tune[vmas]"'
UNUSED = "Scenario kwargs"  # beginning of VMAS's warning about arguments that a scenario does not use


def import_vmas() -> ModuleType:
    """Imports VMAS.

    Raises:
        ValueError: if it is not installed.
    """
    for package in ("vmas", "gym"):  # vmas's spaces are those of the old gym
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"env.name=vmas needs the package {package!r}, which is not installed: {CURE}")
    with _gym_stays_silent():
        importlib.import_module("gym")
    return importlib.import_module("vmas")


@contextlib.contextmanager
def _gym_stays_silent() -> Iterator[None]:
    """Suppresses what importing gym does besides: it writes to stderr that gymnasium has replaced it, and it sets
    pygame's sound driver to one that complains if there is no sound card."""
    driver = os.environ.get("SDL_AUDIODRIVER")
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
    if driver is None:
        os.environ.pop("SDL_AUDIODRIVER", None)
    else:
        os.environ["SDL_AUDIODRIVER"] = driver


def make_env(
    scenario: str, kwargs: Mapping[str, object], num_envs: int, device: str, **settings: object
) -> "Environment":
    """Makes VMAS's environment of B = `num_envs` copies; with equal arguments it is always the same.

    Args:
        scenario: name of one of VMAS's scenarios.
        kwargs: arguments of the scenario.
        num_envs: B.
        device: torch's name of the device on which it simulates.
        settings: further arguments of `vmas.make_env`.

    Raises:
        ValueError: if VMAS is not installed, has no such scenario, or the scenario does not accept `kwargs`; or if
            torch cannot use the device.
    """
    vmas = import_vmas()
    known = [*vmas.scenarios, *vmas.mpe_scenarios, *vmas.debug_scenarios]
    if scenario not in known:
        near = difflib.get_close_matches(scenario, known, n=3)
        cure = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"
        raise ValueError(f"env.scenario must name a scenario of VMAS, got {scenario!r}: {cure}")
    import torch  # only here: the settings of the world are read without torch

    try:
        torch.zeros(1, device=device)
    except Exception as error:
        raise ValueError(f"env.device must be one that torch can use here, got {device!r}: {_said(error)}") from error
    try:
        with warnings.catch_warnings(), draws_from(np.random.default_rng(0), device):
            warnings.filterwarnings("error", message=UNUSED)
            return vmas.make_env(
                scenario, num_envs, device, clamp_actions=True, terminated_truncated=True, **settings, **kwargs
            )
    except ModuleNotFoundError as error:
        raise ValueError(f"env.scenario={scenario} needs the package {error.name!r}, which is not installed") from error
    except Exception as error:
        rule = f"hold arguments that {scenario} takes"
        raise ValueError(f"env.kwargs must {rule}, got {dict(kwargs)!r}: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def to_gymnasium(space: Any) -> gym.Space:
    """A space of the old gym, which VMAS uses, as a space of gymnasium. A Box becomes float32."""
    kind = type(space).__name__
    if kind == "Box":
        return gym.spaces.Box(np.float32(space.low), np.float32(space.high), dtype=np.float32)
    if kind == "Discrete":
        return gym.spaces.Discrete(int(space.n))
    if kind == "Dict":
        return gym.spaces.Dict({key: to_gymnasium(part) for key, part in space.spaces.items()})
    raise ValueError(f"env.scenario must have agents that observe and act by Box, Discrete or Dict, got {space}")
