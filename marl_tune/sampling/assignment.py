"""Which rows of which module's batch stand for which agent of which copy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from marl_tune.sharing.policy_map import PolicyMap

Parts = list[tuple[str, np.ndarray | None]]  # group, and places among its B N agents, copy by copy; None: all of them
Seed = int | list[int] | None  # of a generator; None: a fresh one


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
