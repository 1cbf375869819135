"""Which RLModule acts for which agent: fixed for a run, or drawn for every episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import AgentGroup
from marl_tune.sharing.matchmaking import Matchmaker

Draw = Callable[[np.random.Generator, int], Mapping[str, str]]
# (random generator, turn) -> agent id -> module id, for one episode; turn: number of its copy + number of the episode


@dataclass(frozen=True)
class ModuleAgents:
    """The agents that a module may act for, and their common spaces."""

    module_id: str
    groups: tuple[str, ...]
    agents: tuple[str, ...]
    observation_space: gym.Space
    action_space: gym.Space


class PolicyMap:
    """The modules, and the agents that each may act for.

    Args:
        groups: the world's agent groups.
        module_of: agent id -> module id; with `draw`, the ids of the modules that may act for it.
        draw: chooses the modules of one episode of one copy. None: `module_of` holds for all episodes.
        matchmaker: the owner of `draw` where sides play against each other.

    Raises:
        ValueError: if two agents with different spaces share a module.
    """

    def __init__(
        self,
        groups: Sequence[AgentGroup],
        module_of: Mapping[str, str | Sequence[str]],
        draw: Draw | None = None,
        matchmaker: Matchmaker | None = None,
    ):
        self.groups = tuple(groups)
        self.choices = {agent: (ids,) if isinstance(ids, str) else tuple(ids) for agent, ids in module_of.items()}
        self.draw, self.matchmaker = draw, matchmaker
        self.agents = [agent for group in self.groups for agent in group.agents]
        self.counted = [agent for group in self.groups if group.counted for agent in group.agents]
        serves: dict[str, list[AgentGroup]] = {}
        for group in self.groups:
            for agent in group.agents:
                for module_id in self.choices[agent]:
                    serves.setdefault(module_id, []).append(group)
        self.modules = {module_id: self._agents_of(module_id, those) for module_id, those in serves.items()}
        self.module_ids = list(self.modules)

    def _agents_of(self, module_id: str, groups: Sequence[AgentGroup]) -> ModuleAgents:
        first = groups[0]
        for group in groups:
            if (group.observation_space, group.action_space) != (first.observation_space, first.action_space):
                raise ValueError(f"module {module_id} cannot serve both {first.name} and {group.name}: spaces differ")
        return ModuleAgents(
            module_id=module_id,
            groups=tuple(dict.fromkeys(group.name for group in groups)),
            agents=tuple(agent for agent in self.agents if module_id in self.choices[agent]),
            observation_space=first.observation_space,
            action_space=first.action_space,
        )

    def first_choices(self) -> PolicyMap:
        """The map in which the first of its modules acts for each agent; policies are evaluated with it."""
        return PolicyMap(self.groups, {agent: ids[0] for agent, ids in self.choices.items()})

    def owners(self, rng: np.random.Generator, turn: int = 0) -> dict[str, np.ndarray]:
        """The modules of one episode of one copy: group -> (N,) indices into `module_ids`.

        Raises:
            ValueError: if `draw` gives an agent a module that is not among its choices.
        """
        chosen = {agent: ids[0] for agent, ids in self.choices.items()} if self.draw is None else self.draw(rng, turn)
        for agent in self.agents:
            if chosen[agent] not in self.choices[agent]:
                raise ValueError(f"{agent} was given module {chosen[agent]!r}, not one of {self.choices[agent]}")
        number = {module_id: i for i, module_id in enumerate(self.module_ids)}
        return {g.name: np.array([number[chosen[agent]] for agent in g.agents]) for g in self.groups}
