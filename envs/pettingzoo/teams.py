"""One instance of a PettingZoo world, in the three ways in which its agents may come to act."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from marl_tune.envs.world import TERMINATED, TRUNCATED


class TeamChanged(RuntimeError):
    """An agent left or joined in the course of an episode of a world in which that must not be."""


class Outcome(NamedTuple):
    """What a step of a team brought."""

    rewards: dict[Any, float]  # agent -> reward; for all that it did since it was last paid
    left: dict[Any, int]  # agent -> TERMINATED or TRUNCATED, if its episode ended with this step; {} for a fixed team
    terminated: bool
    truncated: bool


class Team(ABC):
    """An instance and the agents that act in it.

    Args:
        env: the instance.
        world_id: what errors call it.
    """

    acting: set[Any]  # the agents that act in the next step

    def __init__(self, env: Any, world_id: str):
        self.env, self.world_id = env, world_id
        self.agents = list(env.possible_agents)
        self.steps = 0  # of the present episode
        self.observations: dict[Any, Any] = {}  # agent -> observation; {} before the first reset
        self.infos: dict[Any, Any] = {}  # agent -> info of its last step
        self.acting = set()

    @abstractmethod
    def reset(self, seed: int | None) -> None:
        """Starts an episode; None goes on with the instance's own generator."""

    @abstractmethod
    def step(self, actions: dict[Any, Any]) -> Outcome:
        """One step: agent -> action, of at least those that are `acting`. Raises TeamChanged."""

    def close(self) -> None:
        """Releases what the instance holds."""
        with _pygame_kept():
            self.env.close()

    def _restart(self, seed: int | None) -> Any:
        """Resets the instance, and returns what that returns."""
        self.steps = 0
        return self.env.reset() if seed is None else self.env.reset(seed=seed)

    def _outcome(self, rewards: dict[Any, float], left: dict[Any, int]) -> Outcome:
        """Of a step after which some agents have left: the episode ends with the last of them, by being cut off if any
        that left with it was."""
        ended, cut_off = not self.acting, TRUNCATED in left.values()
        return Outcome(rewards, left, ended and not cut_off, ended and cut_off)

    def _error(self, rule: str, event: str) -> TeamChanged:
        where = f"got {self.world_id!r}: {event} at step {self.steps} of an episode"
        return TeamChanged(f"env.id must name a world {rule}, {where}")


class FixedTeam(Team):
    """An instance of the parallel API, all of whose `possible_agents` act in every step and end together."""

    def __init__(self, env: Any, world_id: str):
        super().__init__(env, world_id)
        self._all = dict.fromkeys(self.agents)
        self.acting = set(self.agents)

    def reset(self, seed: int | None) -> None:
        """See `Team.reset`. Raises TeamChanged."""
        self.observations, self.infos = self._restart(seed)
        if self.observations.keys() != self._all.keys():
            raise self._changed()

    def step(self, actions: dict[Any, Any]) -> Outcome:
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
        """The error for a step that brought observations of other agents than the team's."""
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
        self._ended: set[Any] = set()
        self._take_over(set(self.env.agents))

    def step(self, actions: dict[Any, Any]) -> Outcome:
        """See `Team.step`. The episode ends when nobody is left, and has terminated unless the last ones were cut off.

        Raises:
            TeamChanged: if an agent is gone that was neither terminated nor truncated, or comes back, or is unknown.
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

    def _take_over(self, alive: set[Any]) -> None:
        if strangers := alive.difference(self.agents):
            rule = "that lists all its agents in possible_agents"
            raise self._error(rule, f"agent {min(strangers, key=str)!r} joined")
        if returned := alive & self._ended:
            rule = "whose agents do not come back in the same episode"
            raise self._error(rule, f"agent {min(returned, key=str)!r} did")
        self.acting = alive


class TurnTeam(Team):
    """An instance of the turn-based (AEC) API: a step is the action of the one agent whose turn it is.

    What an agent has earned since its last action is paid when its turn comes again, or when it ends.
    """

    def reset(self, seed: int | None) -> None:
        """See `Team.reset`."""
        self._restart(seed)
        self.observations, self.infos = {}, {}
        self._next_turn()

    def step(self, actions: dict[Any, Any]) -> Outcome:
        """See `Team.step`. The episode ends as in `ChangingTeam`."""
        self.env.step(actions[self.env.agent_selection])
        self.steps += 1
        self.observations = {}
        return self._outcome(*self._next_turn())

    def _next_turn(self) -> tuple[dict[Any, float], dict[Any, int]]:
        """Takes note of those that have ended and stops at the next agent to act."""
        rewards: dict[Any, float] = {}
        left: dict[Any, int] = {}
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
    """The `close` of nearly every world calls `pygame.quit()`, which would end all other instances in this process."""
    pygame: Any = sys.modules.get("pygame")
    if pygame is None:
        yield
        return
    quit_pygame, pygame.quit = pygame.quit, lambda: None
    try:
        yield
    finally:
        pygame.quit = quit_pygame
