"""A PettingZoo world, parallel or turn-based, or one of the user's own, as a `World`: B instances, one after the
other."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import Actions, AgentGroup, Observations
from marl_tune.envs.curriculum import WorldConfig
from marl_tune.envs.groups import checked_actions, group_agents, zero_observations
from marl_tune.envs.pettingzoo import snapshots
from marl_tune.envs.pettingzoo.api_types import Action, AgentID, Observation
from marl_tune.envs.pettingzoo.loading import make_env, silenced
from marl_tune.envs.pettingzoo.preprocess_settings import PreprocessConfig
from marl_tune.envs.pettingzoo.preprocessing import preprocessed
from marl_tune.envs.pettingzoo.teams import ChangingTeam, FixedTeam, Team, TurnTeam
from marl_tune.envs.world import STAYS, Step, World, WorldState, resolve_reset

ACTIONS = (gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.Box)
FIXED_TEAMS = ("mpe/", "sisl/", "butterfly/cooperative_pong", "butterfly/pistonball")
# beginnings of the ids of PettingZoo's own worlds in which all agents act from the start of an episode to its end
PARTS = (gym.spaces.Box, gym.spaces.MultiBinary)  # spaces of which an observation, or a key of a Dict, may be


@dataclass
class PettingzooConfig(WorldConfig):
    """Which world, and where its copies run."""

    name: str
    # stem of the world: pettingzoo
    id: str = field(metadata={"structural": True})
    # mpe/simple_spread_v3 (of pettingzoo), or my_package.my_env: a module of yours with parallel_env(**kwargs), or with
    # env(**kwargs) if agents take turns
    kwargs: dict[str, Any] = field(metadata={"structural": True})
    # arguments of its parallel_env or env; the others keep the world's own defaults
    fixed_team: bool | None = field(metadata={"structural": True})
    # true: all agents of a parallel world act in all steps and end together, which is faster, and an error if it is not
    # so; false: agents may die or join; null: true for those of PettingZoo's own worlds where it is known to hold
    preprocess: PreprocessConfig = field(metadata={"structural": True})
    # changes to observations, actions and rewards: see envs/pettingzoo/preprocess_settings.py
    workers: int = field(metadata={"structural": True})
    # processes that step the copies, the trial's own included, >= 0; 0 and 1: its own alone

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+(/\w+)+|\w+(\.\w+)*", self.id):
            rule = "like mpe/simple_spread_v3, or the dotted name of a module of yours"
            raise ValueError(f"env.id must be {rule}, got {self.id!r}")
        if self.workers < 0:
            raise ValueError(f"env.workers must be at least 0, got {self.workers}")
        if isinstance(self.preprocess, Mapping):
            self.preprocess = PreprocessConfig(**self.preprocess)


class Pettingzoo(World):
    """B instances of one PettingZoo world.

    Description:
        Agents with the same spaces, and the same name but for its number, form a group that has that name: `agent_0`
        and `agent_1` are the group `agent`. Agents of a parallel world may die or join during an episode, but they do
        not come back. Agents of a turn-based world act one by one, and get their reward when their turn comes again.

    Actions:
        Discrete, MultiDiscrete or Box, in terms of the agent's own space.

    Observations:
        A Box, or a Dict of Boxes and MultiBinaries, of the space's own type: pixels stay uint8. `config.preprocess` can
        change observations, actions and rewards.

    Rewards:
        The world's own.

    Start:
        `reset(seed=...)` of the instance. Without a seed its generator goes on.

    End:
        When no agent is left: terminated if the last ones terminated, truncated otherwise.

    Metrics:
        Each number that the last infos of all agents have under the same name: its mean over the agents.

    Arguments:
        config: which world.
        num_envs: B, the number of instances. Only `marl_tune.envs.make_world` reads `config.workers`.

    Raises:
        ValueError: if there is no such world, it does not accept its arguments, or its spaces are not among those above
            or do not suit `config.preprocess`.

    Source:
        Terry et al.: PettingZoo (2021), https://arxiv.org/abs/2009.14471.
    """

    Config = PettingzooConfig

    def __init__(self, config: PettingzooConfig, num_envs: int = 1):
        self.config, self.num_envs = config, num_envs
        self.teams = [_make_team(config) for _ in range(num_envs)]
        self._members = _grouped(self.teams[0])  # per group its agents, by the world's own names
        self.groups = tuple(group for group, _ in self._members)
        self._order = dict.fromkeys(self.teams[0].agents)  # agents act in the world's own order, whatever their group
        self._fixed = isinstance(self.teams[0], FixedTeam)
        self.own_state_space = _state_space(self.teams[0])
        self._note_who_acts()

    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """See `World.reset`. The observations of copies that have never been reset are zeros."""
        for copy, seed in resolve_reset(self.num_envs, seeds, copies):
            self.teams[copy].reset(seed)
        observations = zero_observations(self.groups, self.num_envs)
        for copy, team in enumerate(self.teams):
            if team.observations:
                self._write(copy, team.observations, observations)
        self._note_who_acts()
        return observations

    def step(self, actions: Actions) -> Step:
        """See `World.step`.

        Raises:
            ValueError: for actions of the wrong shape.
            TeamChanged: if agents leave or join in a way that their kind of team does not allow.
        """
        chosen = [(agents, _rows(group, actions[group.name], self.num_envs)) for group, agents in self._members]
        observations = zero_observations(self.groups, self.num_envs)
        shapes = {group.name: (self.num_envs, len(group.agents)) for group in self.groups}
        rewards = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        left = None if self._fixed else {name: np.full(shape, STAYS, np.int8) for name, shape in shapes.items()}
        terminated, truncated = np.zeros((2, self.num_envs), np.bool_)
        for copy, team in enumerate(self.teams):
            acts = self._order.copy()
            for agents, rows in chosen:
                acts.update(zip(agents, rows[copy], strict=True))
            earned, gone, terminated[copy], truncated[copy] = team.step(acts)
            for group, agents in self._members:
                rewards[group.name][copy] = [earned.get(agent, 0.0) for agent in agents]
                if gone and left is not None:
                    left[group.name][copy] = [gone.get(agent, STAYS) for agent in agents]
            self._write(copy, team.observations, observations)
        self._note_who_acts()
        return Step(observations, rewards, terminated, truncated, left)

    def _note_who_acts(self) -> None:
        if not self._fixed:
            self.acting = {
                group.name: np.array([[agent in team.acting for agent in agents] for team in self.teams])
                for group, agents in self._members
            }

    def own_state(self) -> np.ndarray:
        """See `World.own_state`: `state()` of each instance."""
        return np.stack([team.env.state() for team in self.teams]).astype(np.float32)

    def _write(self, copy: int, seen: dict[AgentID, Observation], observations: Observations) -> None:
        """Writes the observations of one copy's agents into its rows. The rows of agents without one stay zeros."""
        for group, agents in self._members:
            arrays = observations[group.name]
            here = [(row, seen[agent]) for row, agent in enumerate(agents) if agent in seen]
            for key, array in arrays.items() if isinstance(arrays, dict) else [("", arrays)]:
                assert isinstance(array, np.ndarray)
                rows = array[copy]
                for row, observation in here:
                    rows[row] = observation[key] if key else observation

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`: the numbers that the last infos of all agents of all these copies have."""
        found = [_numbers(self.teams[copy]) for copy in copies]
        names = [name for name in found[0] if all(name in numbers for numbers in found)] if found else []
        return {name: np.array([numbers[name] for numbers in found]) for name in names}

    def render(self, copy: int = 0) -> np.ndarray:
        """The world's own picture, `(height, width, 3)` uint8. Raises RuntimeError for a world that draws none."""
        with silenced():
            picture = self.teams[copy].env.render()
        if not isinstance(picture, np.ndarray) or picture.ndim != 3:
            raise RuntimeError(f"env.id={self.config.id} draws no picture: its render() returned {type(picture)}")
        return picture

    def get_state(self) -> WorldState:
        """See `World.get_state`: a snapshot of each instance."""
        return {"copies": [snapshots.dump(team) for team in self.teams]}

    def set_state(self, state: WorldState) -> None:
        """See `World.set_state`. Raises ValueError for the state of a world with another number of copies."""
        if len(state["copies"]) != self.num_envs:
            raise ValueError(f"state of another world: {len(state['copies'])} copies, here {self.num_envs}")
        self.teams = [snapshots.load(snapshot) for snapshot in state["copies"]]
        self._note_who_acts()

    def close(self) -> None:
        """See `World.close`."""
        while self.teams:
            self.teams.pop().close()


def _make_team(config: PettingzooConfig) -> Team:
    env, turns = make_env(config.id, config.kwargs)
    env = preprocessed(env, turns, config.preprocess, config.id)
    if turns:
        return TurnTeam(env, config.id)
    fixed = config.id.startswith(FIXED_TEAMS) if config.fixed_team is None else config.fixed_team
    return (FixedTeam if fixed else ChangingTeam)(env, config.id)


def _state_space(team: Team) -> gym.spaces.Box | None:
    """Space of the world's own `state()`, as float32. None if it has none, or only a picture of the whole screen, which
    is a megabyte a step and which `preprocess` does not make smaller."""
    space = getattr(team.env, "state_space", None)
    if not isinstance(space, gym.spaces.Box) or space.dtype == np.uint8:
        return None
    return gym.spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)


def _grouped(team: Team) -> list[tuple[AgentGroup, tuple[AgentID, ...]]]:
    """The groups of a world, each with its agents as the world names them."""
    kinds = []
    for agent in team.agents:
        spaces = team.env.observation_space(agent), team.env.action_space(agent)
        _check_spaces(team.world_id, agent, *spaces)
        kinds.append((str(agent), re.sub(r"_?\d+$", "", str(agent)) or "agent", *spaces))
    return [(group, tuple(team.agents[place] for place in places)) for group, places in group_agents(kinds)]


def _check_spaces(world_id: str, agent: AgentID, observation: gym.Space, action: gym.Space) -> None:
    parts = observation.values() if isinstance(observation, gym.spaces.Dict) else [observation]
    if not all(isinstance(part, PARTS) for part in parts):
        rule = "whose agents observe a Box, or a Dict of Boxes and MultiBinaries"
        raise ValueError(f"env.id must name a world {rule}, got {world_id!r}, where {agent!r} observes {observation}")
    if not isinstance(action, ACTIONS):
        rule = "whose agents act by Discrete, MultiDiscrete or Box"
        raise ValueError(f"env.id must name a world {rule}, got {world_id!r}, where {agent!r} acts by {action}")


def _rows(group: AgentGroup, actions: np.ndarray, num_envs: int) -> list[Sequence[Action]]:
    """A group's actions as a list over copies; each entry has one action per agent, in memory of its own."""
    given, space = checked_actions(group, actions, num_envs), group.action_space
    return given.tolist() if isinstance(space, gym.spaces.Discrete) else list(np.array(given, space.dtype))


def _numbers(team: Team) -> dict[str, float]:
    """The numbers in the last infos that every agent has, as their mean over the agents."""
    infos = [team.infos.get(agent, {}) for agent in team.agents]
    values = {name: [info[name] for info in infos] for name in infos[0] if all(name in info for info in infos)}
    numbers = {name: [value for value in many if _is_number(value)] for name, many in values.items()}
    means = {str(name): float(np.mean(many)) for name, many in numbers.items() if len(many) == len(infos)}
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating)
