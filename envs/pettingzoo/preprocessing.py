"""A wrapper that changes the observations, actions and rewards of a PettingZoo world.

The changes are SuperSuit's (https://github.com/Farama-Foundation/SuperSuit) and are computed by its functions. Its
wrappers are not used, for two reasons. For each change they convert a parallel world to a turn-based one and back. And
they do not accept an observation that is a Dict with an action mask.
"""

import warnings

import gymnasium as gym
import numpy as np

from marl_tune.envs.pettingzoo.api_types import Action, AgentID, Env, Info, Observation, ParallelReset, ParallelStep
from marl_tune.envs.pettingzoo.observation_changes import ObservationPipeline, make_pipelines
from marl_tune.envs.pettingzoo.preprocess_settings import PreprocessConfig, wrong


def preprocessed(
    env: Env, turns: bool, config: PreprocessConfig, world_id: str
) -> "Env | PreprocessedParallelEnv | PreprocessedTurnEnv":
    """The world with the changes of the settings; `env` itself if all settings are off.

    Args:
        env: an instance of PettingZoo's parallel API, or of its turn-based one.
        turns: whether it is turn-based.
        config: the changes.
        world_id: the name of the world in error messages.

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
    return (PreprocessedTurnEnv if turns else PreprocessedParallelEnv)(env, config, world_id)


class PreprocessedEnv:
    """What the wrappers for both APIs have in common. It offers the part of the API that a `Team` uses."""

    def __init__(self, env: Env, config: PreprocessConfig, world_id: str):
        self.env, self.config, self.possible_agents = env, config, list(env.possible_agents)
        self._own_acts = {agent: env.action_space(agent) for agent in self.possible_agents}
        self._acts = _padded(self._own_acts, world_id) if config.pad_actions else self._own_acts
        self._sights: dict[AgentID, ObservationPipeline] = make_pipelines(env, config, world_id)
        for agent, space in self._acts.items():
            if config.pad_actions and isinstance(space, gym.spaces.Discrete):
                self._sights[agent].pad_mask(int(space.n))

    @property
    def agents(self) -> list[AgentID]:
        """The agents that are in the world now."""
        return self.env.agents

    def observation_space(self, agent: AgentID) -> gym.Space:
        """The space of the agent's changed observations."""
        return self._sights[agent].space

    def action_space(self, agent: AgentID) -> gym.Space:
        """The space of the actions that the agent may choose."""
        return self._acts[agent]

    @property
    def state_space(self) -> gym.Space | None:
        """Space of the world's own `state`, where it has one."""
        return getattr(self.env, "state_space", None)

    def state(self) -> np.ndarray:
        """The world's own state, unchanged."""
        return self.env.state()

    def render(self) -> np.ndarray | None:
        """The world's own picture."""
        return self.env.render()

    def close(self) -> None:
        """Releases what the world holds."""
        self.env.close()

    def _begin(self) -> None:
        for pipeline in self._sights.values():
            pipeline.begin()

    def _act(self, agent: AgentID, action: Action) -> Action:
        """The action of the world's own space for an action of the padded one."""
        own = self._own_acts[agent]
        if action is None or own is self._acts[agent]:
            return action
        if isinstance(own, gym.spaces.Discrete):
            return action if action < own.n else 0
        assert isinstance(action, np.ndarray)
        return np.clip(action[: own.shape[0]], own.low, own.high)

    def _pay(self, reward: float) -> float:
        scale, clip = self.config.reward_scale, self.config.clip_reward
        scaled = reward if scale is None else reward * scale
        return scaled if clip is None else min(max(scaled, clip[0]), clip[1])


class PreprocessedParallelEnv(PreprocessedEnv):
    """A world of the parallel API."""

    def reset(self, **seed: int) -> ParallelReset:
        """As in the parallel API."""
        observations, infos = self.env.reset(**seed)
        self._begin()
        return {agent: self._sights[agent](seen) for agent, seen in observations.items()}, infos

    def step(self, actions: dict[AgentID, Action]) -> ParallelStep:
        """As in the parallel API."""
        acts = {agent: self._act(agent, action) for agent, action in actions.items()}
        observations, rewards, terminations, truncations, infos = self.env.step(acts)
        observations = {agent: self._sights[agent](seen) for agent, seen in observations.items()}
        rewards = {agent: self._pay(reward) for agent, reward in rewards.items()}
        return observations, rewards, terminations, truncations, infos


class PreprocessedTurnEnv(PreprocessedEnv):
    """A world of the turn-based API. Call `last` exactly once a turn: a stack remembers what it returns."""

    @property
    def agent_selection(self) -> AgentID:
        """The agent whose turn it is."""
        return self.env.agent_selection

    def reset(self, **seed: int) -> None:
        """As in the turn-based API."""
        self.env.reset(**seed)
        self._begin()

    def step(self, action: Action) -> None:
        """As in the turn-based API."""
        self.env.step(self._act(self.env.agent_selection, action))

    def last(self) -> tuple[Observation, float, bool, bool, Info]:
        """As in the turn-based API."""
        observation, reward, terminated, truncated, info = self.env.last()
        return self._sights[self.env.agent_selection](observation), self._pay(reward), terminated, truncated, info


def _padded(spaces: dict[AgentID, gym.Space], world_id: str) -> dict[AgentID, gym.Space]:
    """The largest action space for each agent. Equal spaces stay as they are."""
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
