"""One instance of a PettingZoo world and its team of agents. There are three kinds of teams.

| class | API | agents |
|---|---|---|
| `FixedTeam` | parallel | all act in every step and end together |
| `ChangingTeam` | parallel | may die or join in the course of an episode |
| `TurnTeam` | turn-based (AEC) | act one at a time |
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple

from marl_tune.envs.pettingzoo.api_types import Action, AgentID, Env, Info, Observation, ParallelReset
from marl_tune.envs.world import TERMINATED, TRUNCATED


class TeamChanged(RuntimeError):
    """An agent left or joined during an episode, in a world of which the settings say that this does not happen."""


class Outcome(NamedTuple):
    """The result of one step of a team, but for observations and infos."""

    rewards: dict[AgentID, float]  # agent -> its reward since its last one
    left: dict[
        AgentID, int
    ]  # agent -> TERMINATED or TRUNCATED, if its episode ended with this step; {} for a fixed team
    terminated: bool
    truncated: bool


class Team(ABC):
    """An instance and the agents that act in it.

    Args:
        env: the instance.
        world_id: its name in error messages.
    """

    acting: set[AgentID]  # the agents that act in the next step

    def __init__(self, env: Env, world_id: str):
        self.env, self.world_id = env, world_id
        self.agents = list(env.possible_agents)
        self.steps = 0  # of the present episode
        self.observations: dict[AgentID, Observation] = {}  # agent -> observation; {} before the first reset
        self.infos: dict[AgentID, Info] = {}  # agent -> info of its last step
        self.acting = set()

    @abstractmethod
    def reset(self, seed: int | None) -> None:
        """Starts an episode. Without a seed (None), the instance goes on with its own generator."""

    @abstractmethod
    def step(self, actions: dict[AgentID, Action]) -> Outcome:
        """One step.

        Args:
            actions: agent -> action, of at least the agents that are `acting`.

        Raises:
            TeamChanged: if agents leave or join in a way that this kind of team does not allow.
        """

    def close(self) -> None:
        """Releases what the instance holds."""
        with _pygame_kept():
            self.env.close()

    def _restart(self, seed: int | None) -> ParallelReset:
        """Resets the instance, and returns the result: observations and infos of the parallel API, else None."""
        self.steps = 0
        return self.env.reset() if seed is None else self.env.reset(seed=seed)

    def _outcome(self, rewards: dict[AgentID, float], left: dict[AgentID, int]) -> Outcome:
        """The outcome of a step. The episode ends when the last agent has left. It is truncated if any agent that left
        in this step was truncated, else terminated."""
        ended, cut_off = not self.acting, TRUNCATED in left.values()
        return Outcome(rewards, left, ended and not cut_off, ended and cut_off)

    def _error(self, rule: str, event: str) -> TeamChanged:
        where = f"got {self.world_id!r}: {event} at step {self.steps} of an episode"
        return TeamChanged(f"env.id must name a world {rule}, {where}")


class FixedTeam(Team):
    """An instance of the parallel API, all of whose `possible_agents` act in every step and end together."""

    def __init__(self, env: Env, world_id: str):
        super().__init__(env, world_id)
        self._all = dict.fromkeys(self.agents)
        self.acting = set(self.agents)

    def reset(self, seed: int | None) -> None:
        """See `Team.reset`. Raises TeamChanged."""
        self.observations, self.infos = self._restart(seed)
        if self.observations.keys() != self._all.keys():
            raise self._changed()

    def step(self, actions: dict[AgentID, Action]) -> Outcome:
        """See `Team.step`. The episode has terminated when it has for all agents."""
        self.observations, rewards, terminations, truncations, self.infos = self.env.step(actions)
        self.steps += 1
        if self.observations.keys() != self._all.keys():
            raise self._changed()
        terminated = [bool(terminations[agent]) for agent in self.agents]
        ended = [end or bool(truncations[agent]) for end, agent in zip(terminated, self.agents, strict=True)]
        if not any(ended):
            return Outcome(rewards, {}, False, False)
        if not all(ended):
            done, others = (self.agents[ended.index(flag)] for flag in (True, False))
            raise self._not_fixed(f"agent {done!r} is done while {others!r} goes on")
        return Outcome(rewards, {}, all(terminated), not all(terminated))

    def _changed(self) -> TeamChanged:
        """The error for a step that returned observations of other agents than the team's."""
        if gone := [agent for agent in self.agents if agent not in self.observations]:
            return self._not_fixed(f"agent {gone[0]!r} is not there")
        joined = next(agent for agent in self.observations if agent not in self._all)
        return self._not_fixed(f"agent {joined!r} joined, which is not one of possible_agents")

    def _not_fixed(self, event: str) -> TeamChanged:
        return self._error("whose agents all stay until the episode ends, where env.fixed_team=true", event)


class ChangingTeam(Team):
    """An instance of the parallel API whose agents may die or join in the course of an episode."""

    def reset(self, seed: int | None) -> None:
        """See `Team.reset`. Raises TeamChanged."""
        self.observations, infos = self._restart(seed)
        self.infos = dict(infos)
        self._ended: set[AgentID] = set()
        self._take_over(set(self.env.agents))

    def step(self, actions: dict[AgentID, Action]) -> Outcome:
        """See `Team.step`. The episode ends when no agent is left; see `Team._outcome`.

        Raises:
            TeamChanged: if an agent is missing that was neither terminated nor truncated, comes back, or is unknown.
        """
        acted = self.acting
        observations, rewards, terminations, truncations, infos = self.env.step(
            {agent: actions[agent] for agent in self.env.agents}
        )
        self.steps += 1
        self.observations = observations
        self.infos.update(infos)
        flags = {agent: terminations.get(agent, False) or truncations.get(agent, False) for agent in self.agents}
        left = {a: TERMINATED if terminations.get(a, False) else TRUNCATED for a, ended in flags.items() if ended}
        left = {agent: how for agent, how in left.items() if agent not in self._ended}
        alive = {agent for agent in self.env.agents if not flags.get(agent, False)}
        if vanished := acted - alive - left.keys():
            rule = "whose agents are terminated or truncated before they are gone"
            raise self._error(rule, f"agent {min(vanished, key=str)!r} is not there")
        self._ended |= left.keys()
        self._take_over(alive)
        return self._outcome(rewards, left)

    def _take_over(self, alive: set[AgentID]) -> None:
        """Makes the agents that are alive those that act next. Raises TeamChanged."""
        if strangers := alive.difference(self.agents):
            rule = "that lists all its agents in possible_agents"
            raise self._error(rule, f"agent {min(strangers, key=str)!r} joined")
        if returned := alive & self._ended:
            rule = "whose agents do not come back in the same episode"
            raise self._error(rule, f"agent {min(returned, key=str)!r} did")
        self.acting = alive


class TurnTeam(Team):
    """An instance of the turn-based (AEC) API: a step is the action of the one agent whose turn it is.

    An agent gets its reward since its last action when its turn comes again, or when its episode ends.
    """

    def reset(self, seed: int | None) -> None:
        """See `Team.reset`."""
        self._restart(seed)
        self.observations, self.infos = {}, {}
        self._next_turn()

    def step(self, actions: dict[AgentID, Action]) -> Outcome:
        """See `Team.step`. The episode ends as in `ChangingTeam`."""
        self.env.step(actions[self.env.agent_selection])
        self.steps += 1
        self.observations = {}
        return self._outcome(*self._next_turn())

    def _next_turn(self) -> tuple[dict[AgentID, float], dict[AgentID, int]]:
        """Goes on to the next agent that acts, past agents whose episode has ended.

        Returns:
            The rewards and the agents that left, as in `Outcome`.
        """
        rewards: dict[AgentID, float] = {}
        left: dict[AgentID, int] = {}
        while self.env.agents:
            agent = self.env.agent_selection
            observation, reward, terminated, truncated, self.infos[agent] = self.env.last()
            self.observations[agent], rewards[agent] = observation, reward
            if not (terminated or truncated):
                self.acting = {agent}
                return rewards, left
            left[agent] = TERMINATED if terminated else TRUNCATED
            self.env.step(None)
        self.acting = set()
        return rewards, left


@contextmanager
def _pygame_kept() -> Iterator[None]:
    """Makes `pygame.quit` do nothing in this context: nearly every world calls it in `close`, and it would end all
    other instances in this process."""
    pygame: ModuleType | None = sys.modules.get("pygame")
    if pygame is None:
        yield
        return
    quit_pygame = pygame.quit
    pygame.quit = lambda: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        pygame.quit = quit_pygame  # type: ignore[attr-defined]
