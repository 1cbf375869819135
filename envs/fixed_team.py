"""One instance of a PettingZoo world in which the same agents act from the start of an episode to its end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class TeamChanged(RuntimeError):
    """An agent left or joined in the course of an episode, or the episode ended for some agents only."""


class FixedTeam:
    """An instance of the parallel API, kept to its rule: all of `possible_agents` act in every step and end together.

    Args:
        env: the instance.
        world_id: what errors call it.
    """

    def __init__(self, env: Any, world_id: str):
        self.env, self.world_id = env, world_id
        self.agents = list(env.possible_agents)
        self._all = dict.fromkeys(self.agents)
        self.steps = 0  # of the present episode
        self.observations: dict[Any, Any] = {}  # agent -> observation of the present state; {} before the first reset
        self.infos: dict[Any, Any] = {}  # agent -> info of the last step

    def reset(self, seed: int | None) -> None:
        """Starts an episode; None goes on with the instance's own generator."""
        self.observations, self.infos = self.env.reset() if seed is None else self.env.reset(seed=seed)
        self.steps = 0
        if self.observations.keys() != self._all.keys():
            raise self._changed(self.observations)

    def step(self, actions: dict[Any, Any]) -> tuple[dict[Any, float], bool, bool]:
        """One step of all agents.

        Args:
            actions: agent -> action.

        Returns:
            The reward of each agent; whether the episode has terminated, which is when it has for all agents; whether
            it was cut off instead.

        Raises:
            TeamChanged: if the rule is broken.
        """
        self.observations, rewards, terminations, truncations, self.infos = self.env.step(actions)
        self.steps += 1
        if self.observations.keys() != self._all.keys():
            raise self._changed(self.observations)
        terminated = [bool(terminations[agent]) for agent in self.agents]
        ended = [end or bool(truncations[agent]) for end, agent in zip(terminated, self.agents, strict=True)]
        if not any(ended):
            return rewards, False, False
        if not all(ended):
            done, others = (self.agents[ended.index(flag)] for flag in (True, False))
            raise self._error(f"agent {done!r} is done while {others!r} goes on")
        return rewards, all(terminated), not all(terminated)

    def close(self) -> None:
        """Releases what the instance holds."""
        with _pygame_kept():
            self.env.close()

    def _changed(self, present: dict[Any, Any]) -> TeamChanged:
        """The error for a step that brought observations of other agents than the team's."""
        if left := [agent for agent in self.agents if agent not in present]:
            return self._error(f"agent {left[0]!r} is not there")
        joined = next(agent for agent in present if agent not in self._all)
        return self._error(f"agent {joined!r} joined, which is not one of possible_agents")

    def _error(self, event: str) -> TeamChanged:
        return TeamChanged(
            f"env.id must name a world whose agents all stay until the episode ends, got {self.world_id!r}: {event} "
            f"at step {self.steps} of an episode"
        )


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
