"""What is done to the observations, actions and rewards of a PettingZoo world before agents see it.

The changes are SuperSuit's, https://github.com/Farama-Foundation/SuperSuit, worked out by its functions, but in one
layer of ours in place of its wrappers: those drive a parallel world as a turn-based one and back again for each change,
and serve no observation that is a Dict with an action mask.
"""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np

from marl_tune.envs.pettingzoo.observation_changes import Sight, make_sights
from marl_tune.envs.pettingzoo.preprocess_settings import PreprocessConfig, wrong


def preprocessed(env: Any, turns: bool, config: PreprocessConfig, world_id: str) -> Any:
    """The world as the settings change it; `env` itself where they are all off.

    Args:
        env: an instance of PettingZoo's parallel API.
        turns: whether it is one of the turn-based API instead.
        config: what is done.
        world_id: what errors call the world.

    Raises:
        ValueError: if SuperSuit is missing, or a setting does not suit the world's spaces.
    """
    used = config.used()
    if not used:
        return env
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what SuperSuit imports
            import supersuit  # noqa: F401  only here, as few worlds need it
    except ModuleNotFoundError as error:
        package = (error.name or "supersuit").partition(".")[0]
        cure = 'which is not installed: pip install "marl-tune[envs]"'
        raise ValueError(f"env.preprocess.{used[0]} needs the package {package!r}, {cure}") from error
    return (_Turns if turns else _Parallel)(env, config, world_id)


class _Preprocessed:
    """What worlds of both APIs have in common, with as much of the API as a `Team` uses."""

    def __init__(self, env: Any, config: PreprocessConfig, world_id: str):
        self.env, self.config, self.possible_agents = env, config, list(env.possible_agents)
        self._own_acts = {agent: env.action_space(agent) for agent in self.possible_agents}
        self._acts = _padded(self._own_acts, world_id) if config.pad_actions else self._own_acts
        self._sights: dict[Any, Sight] = make_sights(env, config, world_id)
        for agent, space in self._acts.items():
            if config.pad_actions and isinstance(space, gym.spaces.Discrete):
                self._sights[agent].pad_mask(int(space.n))

    @property
    def agents(self) -> list[Any]:
        """The agents that are there now."""
        return self.env.agents

    def observation_space(self, agent: Any) -> gym.Space:
        """What the agent sees."""
        return self._sights[agent].space

    def action_space(self, agent: Any) -> gym.Space:
        """What the agent may choose."""
        return self._acts[agent]

    @property
    def state_space(self) -> gym.Space | None:
        """Space of the world's own `state`, where it has one."""
        return getattr(self.env, "state_space", None)

    def state(self) -> Any:
        """The world's own state, as it is."""
        return self.env.state()

    def render(self) -> Any:
        """The world's own picture."""
        return self.env.render()

    def close(self) -> None:
        """Releases what the world holds."""
        self.env.close()

    def _begin(self) -> None:
        for sight in self._sights.values():
            sight.begin()

    def _act(self, agent: Any, action: Any) -> Any:
        """The world's own action for what the agent chose."""
        own = self._own_acts[agent]
        if action is None or own is self._acts[agent]:
            return action
        if isinstance(own, gym.spaces.Discrete):
            return action if action < own.n else 0
        return np.clip(action[: own.shape[0]], own.low, own.high)

    def _pay(self, reward: float) -> float:
        scale, clip = self.config.reward_scale, self.config.clip_reward
        scaled = reward if scale is None else reward * scale
        return scaled if clip is None else min(max(scaled, clip[0]), clip[1])


class _Parallel(_Preprocessed):
    """A world of the parallel API."""

    def reset(self, **seed: int) -> tuple[dict, dict]:
        """As in the parallel API."""
        observations, infos = self.env.reset(**seed)
        self._begin()
        return {agent: self._sights[agent](seen) for agent, seen in observations.items()}, infos

    def step(self, actions: dict[Any, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """As in the parallel API."""
        acts = {agent: self._act(agent, action) for agent, action in actions.items()}
        observations, rewards, terminations, truncations, infos = self.env.step(acts)
        observations = {agent: self._sights[agent](seen) for agent, seen in observations.items()}
        rewards = {agent: self._pay(reward) for agent, reward in rewards.items()}
        return observations, rewards, terminations, truncations, infos


class _Turns(_Preprocessed):
    """A world of the turn-based API; `last` must be asked once a turn, for it is then that the agent sees."""

    @property
    def agent_selection(self) -> Any:
        """Whose turn it is."""
        return self.env.agent_selection

    def reset(self, **seed: int) -> None:
        """As in the turn-based API."""
        self.env.reset(**seed)
        self._begin()

    def step(self, action: Any) -> None:
        """As in the turn-based API."""
        self.env.step(self._act(self.env.agent_selection, action))

    def last(self) -> tuple[Any, float, bool, bool, dict]:
        """As in the turn-based API."""
        observation, reward, terminated, truncated, info = self.env.last()
        return self._sights[self.env.agent_selection](observation), self._pay(reward), terminated, truncated, info


def _padded(spaces: dict[Any, gym.Space], world_id: str) -> dict[Any, gym.Space]:
    """The largest action space for each agent; their own ones where they are equal."""
    from supersuit.utils.action_transforms import homogenize_ops

    kinds = list(spaces.values())
    if all(space == kinds[0] for space in kinds):
        return spaces
    boxes = all(isinstance(space, gym.spaces.Box) and len(space.shape) == 1 for space in kinds)
    one_type = len({space.dtype for space in kinds}) == 1
    if not (boxes and one_type) and not all(isinstance(s, gym.spaces.Discrete) and s.start == 0 for s in kinds):
        rule = "false where actions are neither all Discrete, counting from 0, nor all Boxes of one type with one axis"
        raise wrong("pad_actions", rule, f"true for {world_id} with {', '.join(dict.fromkeys(map(str, kinds)))}")
    return dict.fromkeys(spaces, homogenize_ops.homogenize_spaces(kinds))
