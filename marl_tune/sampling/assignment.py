"""Which row of which module's batch belongs to which agent of which copy of the environment."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypedDict

import numpy as np

from marl_tune.sharing.policy_map import PolicyMap

RowSources = list[tuple[str, np.ndarray | None]]
# (group, places) pairs: where the rows of a module come from. A place is the number b N + n of an agent in its group:
# copy b, column n. None: all B N places of the group
Seed = int | list[int] | None  # seed of a random generator; None: a fresh, unseeded one


class AssignmentState(TypedDict):
    """State of an `Assignment`."""

    owner: dict[str, np.ndarray]
    turns: np.ndarray
    replaced: np.ndarray
    generator: Mapping[str, object]


class Assignment:
    """Says which module acts for which agent of which copy at present, and in which row of its batch.

    All agents of all copies have a number, their slot: group by group, copy by copy, agent by agent. The rows of a
    module are its slots in ascending order.

    >>> from marl_tune.envs import default_config, make_world
    >>> groups = make_world(default_config("ant_colony", n_agents=2)).groups
    >>> assignment = Assignment(PolicyMap(groups, {"ant_0": "red", "ant_1": "blue"}), num_envs=3)
    >>> assignment.module_numbers["ants"].tolist()  # of 3 copies
    [[0, 1], [0, 1], [0, 1]]
    >>> assignment.slots["blue"].tolist(), assignment.copy_of_row["blue"].tolist()
    ([1, 3, 5], [0, 1, 2])

    Args:
        policy_map: which modules may act for which agents.
        num_envs: B, the number of copies.
        seed: of the random generator that chooses modules.
    """

    def __init__(self, policy_map: PolicyMap, num_envs: int, seed: Seed = None):
        self.policy_map, self.num_envs = policy_map, num_envs
        self.rng = np.random.default_rng(seed)
        self.module_numbers = {g.name: np.zeros((num_envs, len(g.agents)), np.int64) for g in policy_map.groups}
        # group -> (B, N): which of `PolicyMap.module_ids` acts
        self.turns = np.arange(num_envs)  # (B,) of the present episodes, see `Matchmaker`
        self.replaced = np.zeros(num_envs, bool)  # (B,) copies where a module got other weights during the episode
        self._choose_modules(range(num_envs))

    def begin_episodes(self, copies: np.ndarray) -> bool:
        """Chooses the modules of new episodes in these copies.

        Returns:
            Whether a row can belong to another agent now.
        """
        if self.policy_map.draw is None:
            return False
        self.turns[copies] += 1
        self.replaced[copies] = False
        self._choose_modules(copies)
        return True

    def note_replaced(self, module_ids: Collection[str]) -> None:
        """Notes that these modules have other weights now, so that the episodes they play at present are no games."""
        numbers = [self.policy_map.module_ids.index(module_id) for module_id in module_ids]
        for of_group in self.module_numbers.values():
            self.replaced |= np.isin(of_group, numbers).any(axis=1)

    def get_state(self) -> AssignmentState:
        """Returns which modules act at present, and the state of the random generator."""
        return {
            "owner": {name: value.copy() for name, value in self.module_numbers.items()},
            "turns": self.turns.copy(),
            "replaced": self.replaced.copy(),
            "generator": self.rng.bit_generator.state,
        }

    def set_state(self, state: AssignmentState) -> None:
        """Restores what `get_state` returned."""
        self.module_numbers = {name: value.copy() for name, value in state["owner"].items()}
        self.turns, self.replaced = state["turns"].copy(), state["replaced"].copy()
        self.rng.bit_generator.state = state["generator"]
        self._find_rows()

    def _choose_modules(self, copies: Sequence[int] | np.ndarray) -> None:
        for copy in copies:
            for name, numbers in self.policy_map.owners(self.rng, int(self.turns[copy])).items():
                self.module_numbers[name][copy] = numbers
        self._find_rows()

    def _find_rows(self) -> None:
        self.row_sources: dict[str, RowSources] = {}  # module -> where its rows come from
        self.slots: dict[str, np.ndarray] = {}  # module -> (R,)
        self.copy_of_row: dict[str, np.ndarray] = {}  # module -> (R,)
        for number, module_id in enumerate(self.policy_map.module_ids):
            sources: RowSources = []
            slots, copies, offset = [], [], 0
            for name, of_group in self.module_numbers.items():
                places = np.flatnonzero(of_group == number)
                if len(places):
                    sources.append((name, None if len(places) == of_group.size else places))
                    slots.append(offset + places)
                    copies.append(places // of_group.shape[1])
                offset += of_group.size
            if sources:
                self.row_sources[module_id] = sources
                self.slots[module_id], self.copy_of_row[module_id] = np.concatenate(slots), np.concatenate(copies)

    def rows_of(self, module_id: str, group: str, places: np.ndarray) -> np.ndarray:
        """Returns which rows of the module belong to the agents in these places, b N + n, of a group."""
        offset = 0
        for name, of_group in self.module_numbers.items():
            if name == group:
                break
            offset += of_group.size
        return np.searchsorted(self.slots[module_id], offset + places)

    @property
    def num_slots(self) -> int:
        """Number of agents in all copies together."""
        return sum(of_group.size for of_group in self.module_numbers.values())
