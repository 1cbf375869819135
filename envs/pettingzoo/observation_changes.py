"""The changes to observations that `env.preprocess` asks for, as one pipeline for each agent of a PettingZoo world.

The order of the changes is: grey, resize, normalise, stack, pad, append the agent's id. So a picture is made small
before it is stacked, padding is not stacked, and the id appears once. In a Dict, only the part `observation` is
changed. Its action mask stays as it is; only `pad_actions` lengthens it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from marl_tune.envs.pettingzoo.api_types import AgentID, Env, Observation
from marl_tune.envs.pettingzoo.preprocess_settings import wrong

if TYPE_CHECKING:
    from marl_tune.envs.pettingzoo.preprocess_settings import PreprocessConfig

OBSERVATION, MASK = "observation", "action_mask"  # keys of a Dict observation, as PettingZoo names them
OF_OBSERVATIONS = ("grey", "resize", "normalize_observations", "frame_stack", "pad_observations", "agent_indicator")
Change = Callable[[np.ndarray], np.ndarray]  # an observation -> the changed observation


class ObservationPipeline:
    """Applies changes to the observations of one agent, one after the other.

    Args:
        space: of the observations that the world returns.
    """

    def __init__(self, space: gym.Space):
        self.space = space  # of the changed observations
        self._changes: list[Change] = []
        self._mask_size: int | None = None

    @property
    def box(self) -> gym.spaces.Box:
        """The space of the part that is changed, after the changes so far."""
        return self.space[OBSERVATION] if isinstance(self.space, gym.spaces.Dict) else self.space

    def add(self, change: Change, box: gym.spaces.Box) -> None:
        """Adds a change whose results lie in the space `box`."""
        self._changes.append(change)
        self._replace(OBSERVATION, box)

    def pad_mask(self, size: int) -> None:
        """Pads the action mask, if there is one, to `size` choices. The added choices are always forbidden."""
        if isinstance(self.space, gym.spaces.Dict) and MASK in self.space.spaces:
            self._mask_size = size
            self._replace(MASK, gym.spaces.Box(0, 1, (size,), self.space[MASK].dtype.type))

    def begin(self) -> None:
        """Starts a new episode."""
        for change in self._changes:
            if isinstance(change, Stack):
                change.begin()

    def __call__(self, observation: Observation) -> Observation:
        """The changed observation. Call it once for each observation, because a stack remembers it."""
        if not isinstance(observation, dict):
            return self._changed(observation)
        parts = dict(observation)
        if self._changes:
            parts[OBSERVATION] = self._changed(parts[OBSERVATION])
        if self._mask_size is not None:
            parts[MASK] = _filled_up(parts[MASK], (self._mask_size,))
        return parts

    def _changed(self, seen: np.ndarray) -> np.ndarray:
        for change in self._changes:
            seen = change(seen)
        return seen

    def _replace(self, key: str, part: gym.spaces.Box) -> None:
        whole = self.space
        self.space = gym.spaces.Dict({**whole.spaces, key: part}) if isinstance(whole, gym.spaces.Dict) else part


class Stack:
    """Stacks the latest observations along the last axis, as SuperSuit's frame_stack_v1. A matrix becomes a picture.

    Args:
        box: space of one observation, with one to three axes.
        frames: number of observations in a stack.
    """

    def __init__(self, box: gym.spaces.Box, frames: int):
        self._matrix = len(box.shape) == 2
        low, high = (self._frame(bound) for bound in (box.low, box.high))
        bounds = (np.concatenate([bound] * frames, -1) for bound in (low, high))
        self.space = gym.spaces.Box(*bounds, dtype=box.dtype.type)
        self.begin()

    def begin(self) -> None:
        """Starts a new episode: the stack holds zeros."""
        self._seen = np.zeros(self.space.shape, self.space.dtype)

    def __call__(self, seen: np.ndarray) -> np.ndarray:
        frame = self._frame(seen)
        self._seen = _joined(self._seen[..., frame.shape[-1] :], frame, self.space.dtype)
        return self._seen

    def _frame(self, seen: np.ndarray) -> np.ndarray:
        return seen[..., None] if self._matrix else seen


def make_pipelines(env: Env, config: PreprocessConfig, world_id: str) -> dict[AgentID, ObservationPipeline]:
    """Agent -> the pipeline of its observations.

    Raises:
        ValueError: if a setting does not suit the spaces of the world.
    """
    pipelines = {agent: ObservationPipeline(env.observation_space(agent)) for agent in env.possible_agents}
    used = [name for name in config.used() if name in OF_OBSERVATIONS]
    for agent, pipeline in pipelines.items():
        space, got = pipeline.space, f"{world_id}, where {agent!r} observes {pipeline.space}"
        part = space.spaces.get(OBSERVATION) if isinstance(space, gym.spaces.Dict) else space
        if used and not (isinstance(part, gym.spaces.Box) and 1 <= len(part.shape) <= 3):
            rule = (
                f"left off where an agent observes no Box of one to three axes, alone or as {OBSERVATION!r} of a Dict"
            )
            raise wrong(used[0], rule, got)
        _add_pictures(pipeline, config, got)
        _add_numbers(pipeline, config, got)
    if config.pad_observations:
        _pad(pipelines, world_id)
    if config.agent_indicator:
        _append_ids(pipelines, world_id)
    return pipelines


def _add_pictures(pipeline: ObservationPipeline, config: PreprocessConfig, got: str) -> None:
    """Adds grey and resize."""
    from supersuit.utils.basic_transforms import resize

    pixels = len(pipeline.box.shape) == 3 and pipeline.box.dtype == np.uint8 if config.grey or config.resize else False
    if config.grey:
        if not pixels or pipeline.box.shape[2] != 3:
            raise wrong("grey", "false where observations are not pictures (height, width, 3) of uint8", got)
        height, width, _ = pipeline.box.shape
        pipeline.add(_luminance, _picture(height, width, 1))
    if config.resize is not None:
        if not pixels:
            raise wrong("resize", "null where observations are not pictures (height, width, colours) of uint8", got)
        (height, width), box = config.resize, pipeline.box
        scale = partial(resize.change_observation, obs_space=box, resize=(width, height, True))
        pipeline.add(scale, _picture(height, width, box.shape[2]))


def _add_numbers(pipeline: ObservationPipeline, config: PreprocessConfig, got: str) -> None:
    """Adds normalise and stack."""
    if config.normalize_observations:
        box = pipeline.box
        if not (box.is_bounded() and (box.low < box.high).all()):
            raise wrong("normalize_observations", "false where observations have no bounds", got)
        floats = gym.spaces.Box(box.low.astype(np.float32), box.high.astype(np.float32))
        pipeline.add(partial(_normalised, box=floats), gym.spaces.Box(0.0, 1.0, box.shape))
    if config.frame_stack is not None:
        stack = Stack(pipeline.box, config.frame_stack)
        pipeline.add(stack, stack.space)


def _pad(pipelines: dict[AgentID, ObservationPipeline], world_id: str) -> None:
    from supersuit.utils.action_transforms import homogenize_ops

    boxes = [pipeline.box for pipeline in pipelines.values()]
    if len({(len(box.shape), box.dtype) for box in boxes}) > 1:
        rule = "false where observations differ in their type or number of axes"
        raise wrong("pad_observations", rule, f"true for {world_id} with {', '.join(dict.fromkeys(map(str, boxes)))}")
    common = homogenize_ops.homogenize_spaces(boxes)
    for pipeline in pipelines.values():
        pipeline.add(partial(_filled_up, shape=common.shape), common)


def _append_ids(pipelines: dict[AgentID, ObservationPipeline], world_id: str) -> None:
    from supersuit.utils import agent_indicator

    box, agents = next(iter(pipelines.values())).box, len(pipelines)
    if any(pipeline.box != box for pipeline in pipelines.values()):
        rule = "false where agents observe different spaces, but for env.preprocess.pad_observations=true"
        raise wrong("agent_indicator", rule, f"true for {world_id}")
    space = agent_indicator.change_obs_space(box, agents)
    for place, pipeline in enumerate(pipelines.values()):
        marked = agent_indicator.change_observation(np.zeros(box.shape, box.dtype), box, (place, agents))
        pipeline.add(partial(_appended, entries=marked[..., -agents:]), space)


def _luminance(picture: np.ndarray) -> np.ndarray:
    from supersuit.utils.basic_transforms import color_reduction

    return color_reduction.change_observation(picture, None, "full")[..., None]


def _normalised(seen: np.ndarray, box: gym.spaces.Box) -> np.ndarray:
    from supersuit.utils.basic_transforms import normalize_obs

    return normalize_obs.change_observation(np.asarray(seen, np.float32), box, (0.0, 1.0))


def _filled_up(seen: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Pads each axis with zeros at its end."""
    if seen.shape == shape:
        return seen
    filled = np.zeros(shape, seen.dtype)
    filled[tuple(map(slice, seen.shape))] = seen
    return filled


def _appended(seen: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Appends entries, or channels, at the end of the last axis."""
    return _joined(seen[..., None] if seen.ndim < entries.ndim else seen, entries, entries.dtype)


def _joined(first: np.ndarray, second: np.ndarray, dtype: np.typing.DTypeLike) -> np.ndarray:
    return np.concatenate([first, second], -1, dtype=dtype, casting="unsafe")  # a world's arrays may have another type


def _picture(height: int, width: int, channels: int) -> gym.spaces.Box:
    return gym.spaces.Box(0, 255, (height, width, channels), np.uint8)
