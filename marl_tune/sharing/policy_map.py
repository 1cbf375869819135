"""Which RLModule acts for which agent: fixed for a run, or drawn anew for every episode."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from envs.world import AgentGroup
from marl_tune.sharing.matchmaking import Matchmaker

Parts = list[tuple[str, np.ndarray | None]]  # group, and places among its B N agents, copy by copy; None: all of them
Seed = int | list[int] | None  # of a generator; None: a fresh one
Draw = Callable[[np.random.Generator, int], Mapping[str, str]]
# -> agent id -> module id, for one episode of one copy; the number is its turn: that of the copy + of its episode


@dataclass(frozen=True)
class ModuleAgents:
    """The agents that a module may act for, and the spaces that they have in common."""

    module_id: str
    groups: tuple[str, ...]
    agents: tuple[str, ...]
    observation_space: gym.Space
    action_space: gym.Space


class PolicyMap:
    """Which modules there are and whom they act for.

    Args:
        groups: the world's agent groups.
        module_of: agent id -> module id; with `draw`, the ids of the modules that may act for it.
        draw: chooses the modules of one episode of one copy. None: `module_of` holds for all episodes.
        matchmaker: whose `draw` that is, where sides play against each other.

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
        """The map in which every agent acts by the first of its choices: how a policy is evaluated."""
        return PolicyMap(self.groups, {agent: ids[0] for agent, ids in self.choices.items()})

    def owners(self, rng: np.random.Generator, turn: int = 0) -> dict[str, np.ndarray]:
        """The modules of one episode of one copy: group -> (N,) numbers into `module_ids`.

        Raises:
            ValueError: if `draw` gives an agent a module that is not among its choices.
        """
        chosen = {agent: ids[0] for agent, ids in self.choices.items()} if self.draw is None else self.draw(rng, turn)
        for agent in self.agents:
            if chosen[agent] not in self.choices[agent]:
                raise ValueError(f"{agent} was given module {chosen[agent]!r}, not one of {self.choices[agent]}")
        number = {module_id: i for i, module_id in enumerate(self.module_ids)}
        return {g.name: np.array([number[chosen[agent]] for agent in g.agents]) for g in self.groups}


class Assignment:
    """The rows of every module's batch: which agent of which copy each stands for, at present.

    The agents of group g in copy b are the slots `offset(g) + b N + column`. A module's rows are its slots in
    ascending order: group by group, copy by copy, agent by agent.

    Args:
        policy_map: who may act for whom.
        num_envs: B.
        seed: of the draws; None: fresh.
    """

    def __init__(self, policy_map: PolicyMap, num_envs: int, seed: Seed = None):
        self.map, self.num_envs = policy_map, num_envs
        self.rng = np.random.default_rng(seed)
        self.owner = {g.name: np.zeros((num_envs, len(g.agents)), np.int64) for g in policy_map.groups}
        self.turns = np.arange(num_envs)  # (B,) of the present episodes
        self.replaced = np.zeros(num_envs, bool)  # (B,) copies where a module has become another one in mid-episode
        self._draw(range(num_envs))

    def begin_episodes(self, copies: np.ndarray) -> bool:
        """Draws the modules of new episodes; whether any row may stand for another agent now."""
        if self.map.draw is None:
            return False
        self.turns[copies] += 1
        self.replaced[copies] = False
        self._draw(copies)
        return True

    def note_replaced(self, module_ids: Collection[str]) -> None:
        """Notes that these modules have become others: the episodes that they play at present are nobody's games."""
        numbers = [self.map.module_ids.index(module_id) for module_id in module_ids]
        for owner in self.owner.values():
            self.replaced |= np.isin(owner, numbers).any(axis=1)

    def get_state(self) -> dict[str, Any]:
        """Who acts for whom, and the generator of the draws."""
        return {
            "owner": {name: value.copy() for name, value in self.owner.items()},
            "turns": self.turns.copy(),
            "replaced": self.replaced.copy(),
            "generator": self.rng.bit_generator.state,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes back to what `get_state` returned."""
        self.owner = {name: value.copy() for name, value in state["owner"].items()}
        self.turns, self.replaced = state["turns"].copy(), state["replaced"].copy()
        self.rng.bit_generator.state = state["generator"]
        self._make_rows()

    def _draw(self, copies: Sequence[int] | np.ndarray) -> None:
        for copy in copies:
            for name, numbers in self.map.owners(self.rng, int(self.turns[copy])).items():
                self.owner[name][copy] = numbers
        self._make_rows()

    def _make_rows(self) -> None:
        self.parts: dict[str, Parts] = {}  # module -> where its rows come from
        self.slots: dict[str, np.ndarray] = {}  # module -> (R,)
        self.copies: dict[str, np.ndarray] = {}  # module -> (R,) copy of each row
        for number, module_id in enumerate(self.map.module_ids):
            parts, slots, copies, offset = [], [], [], 0
            for name, owner in self.owner.items():
                places = np.flatnonzero(owner == number)
                if len(places):
                    parts.append((name, None if len(places) == owner.size else places))
                    slots.append(offset + places)
                    copies.append(places // owner.shape[1])
                offset += owner.size
            if parts:
                self.parts[module_id] = parts
                self.slots[module_id], self.copies[module_id] = np.concatenate(slots), np.concatenate(copies)

    def rows(self, module_id: str, group: str, places: np.ndarray) -> np.ndarray:
        """Which of the module's rows are the agents in these places, `b N + column`, of a group."""
        offset = 0
        for name, owner in self.owner.items():
            if name == group:
                break
            offset += owner.size
        return np.searchsorted(self.slots[module_id], offset + places)

    @property
    def num_slots(self) -> int:
        """Agents of all copies together."""
        return sum(owner.size for owner in self.owner.values())
