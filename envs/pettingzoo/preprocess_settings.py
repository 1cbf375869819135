"""Settings of `env.preprocess`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields


@dataclass
class PreprocessConfig:
    """Changes to a world, applied in the order of the fields. With all of them off the world stays as it is."""

    grey: bool
    # pictures of three colours become one channel of luminance: (h, w, 3) -> (h, w, 1); uint8 stays uint8
    resize: list[int] | None
    # [height, width] to which pictures are scaled bilinearly, both >= 1; null: as they are; uint8 stays uint8
    normalize_observations: bool
    # (x - low) / (high - low) by the bounds of the space, as float32. No statistics are kept. A space without bounds is
    # an error. Not needed for pixels, which the modules scale themselves
    frame_stack: int | None
    # number of latest observations that an agent sees at once, >= 1; the newest is at the end of the last axis, zeros
    # stand before the first; null: one
    pad_observations: bool
    # pads smaller observations with zeros at their end, so that all agents have one space
    agent_indicator: bool
    # appends the agent's number, one-hot over all agents; to a picture or a matrix as further channels
    pad_actions: bool
    # gives all agents the largest action space. A Discrete choice that an agent does not have counts as its choice 0,
    # and is forbidden if the agent has an action mask. Entries of a Box that it does not have are ignored
    reward_scale: float | None
    # factor on rewards, above 0; null: 1. Reported returns are sums of the changed rewards
    clip_reward: list[float] | None
    # [low, high] to which scaled rewards are clipped; in a turn-based world, the reward since the agent's last turn is
    # clipped as a whole; null: no clipping

    def __post_init__(self) -> None:
        _check_pair("resize", self.resize, "null or [height, width], both at least 1", lambda h, w: min(h, w) >= 1)
        if self.frame_stack is not None and self.frame_stack < 1:
            raise wrong("frame_stack", "null or at least 1", self.frame_stack)
        if self.reward_scale is not None and not 0 < self.reward_scale < float("inf"):
            raise wrong("reward_scale", "null, or finite and above 0", self.reward_scale)
        _check_pair(
            "clip_reward", self.clip_reward, "null or [low, high], low below high", lambda low, high: low < high
        )

    def used(self) -> list[str]:
        """Names of the settings that are on."""
        return [field.name for field in fields(self) if getattr(self, field.name) not in (None, False)]


def _check_pair(key: str, value: Sequence[float] | None, rule: str, holds: Callable[..., bool]) -> None:
    if value is not None and not (len(value) == 2 and holds(*value)):
        raise wrong(key, rule, list(value))


def wrong(key: str, rule: str, value: object) -> ValueError:
    """The error for a setting of `env.preprocess` that breaks a rule."""
    return ValueError(f"env.preprocess.{key} must be {rule}, got {value}")
