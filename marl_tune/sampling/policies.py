"""One forward pass per module and step over all copies of a world and all agents: the inner loop of sampling and of
evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.utils.spaces.space_utils import unsquash_action

from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.trees import Array, joined, tree_map
from marl_tune.modules.communication import TeamAPI
from marl_tune.sampling.action_sampling import draw
from marl_tune.sampling.assignment import Assignment, Parts, Seed
from marl_tune.sampling.team_order import TeamOrder
from marl_tune.sharing.policy_map import PolicyMap

Arrays = Any  # Array, or a dict of them where the observation space is a Dict
NO_ROWS = np.empty(0, np.int64)
Decision = dict[str, np.ndarray]  # column (RLlib's `Columns`) -> (B, N, ...), of one group and step


class Policies:
    """Modules, with the recurrent state of every agent of every copy; acts for all of them at once.

    Args:
        modules: module id -> RLModule (any `nn.Module` with RLlib's forward methods).
        policy_map: who controls whom.
        num_envs: B, the copies of the world.
        device: where the modules live.
        seed: of the draws of a map that changes from episode to episode.
    """

    def __init__(
        self,
        modules: Mapping[str, RLModule],
        policy_map: PolicyMap,
        num_envs: int,
        device: Any = "cpu",
        seed: Seed = None,
    ):
        self.modules, self.map, self.num_envs, self.device = modules, policy_map, num_envs, device
        self.assignment = Assignment(policy_map, num_envs, seed)
        for module in modules.values():
            module.eval()  # once: the modules' own forward methods, which `_decide` calls, leave the mode as it is
        self.states: dict[str, dict[str, torch.Tensor]] = {}  # stateful module -> name -> (R, ...), as its rows stand
        for module_id in policy_map.module_ids:
            if modules[module_id].is_stateful():
                self.states[module_id] = self._initial_states(module_id)
        self.teams = {m: self._team_order(m, mod) for m, mod in modules.items() if isinstance(mod, TeamAPI)}

    def _team_order(self, module_id: str, module: TeamAPI) -> TeamOrder:
        if self.map.draw is not None:
            raise ValueError(f"module {module_id} talks: it needs the same agents in every episode, not drawn ones")
        return TeamOrder(module_id, self._copies(module_id), module.team_size, self.device)

    def _copies(self, module_id: str) -> np.ndarray:
        return self.assignment.copies.get(module_id, NO_ROWS)

    def _initial_states(self, module_id: str) -> dict[str, torch.Tensor]:
        rows, initial = len(self._copies(module_id)), self.modules[module_id].get_initial_state()
        return {
            name: torch.as_tensor(value, device=self.device).unsqueeze(0).repeat(rows, *[1] * np.ndim(value))
            for name, value in initial.items()
        }

    def states_of_agents(
        self, group: str, places: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray, dict[str, np.ndarray]]]:
        """The present states of agents of a group, copied; the agent of copy b in column n is the place `b N + n`.

        Yields:
            For each module with a memory that acts for some: its id, which of the places, name -> (k, ...).
        """
        owners = self.assignment.owner[group].reshape(-1)[places]
        for module_id, state in self.states.items():
            which = np.flatnonzero(owners == self.map.module_ids.index(module_id))
            if len(which):
                rows = torch.from_numpy(self.assignment.rows(module_id, group, places[which])).to(self.device)
                yield module_id, which, {name: value[rows].cpu().numpy() for name, value in state.items()}

    def states_of(self, module_id: str, copies: np.ndarray) -> dict[int, dict[str, np.ndarray]]:
        """Copy -> name -> (n, ...): the states of the agents that the module acts for in these copies, copied."""
        of_row = self._copies(module_id)
        rows = np.flatnonzero(np.isin(of_row, copies))
        picked = {name: value[torch.from_numpy(rows)].cpu().numpy() for name, value in self.states[module_id].items()}
        return {
            int(copy): {name: value[of_row[rows] == copy] for name, value in picked.items()}
            for copy in np.unique(of_row[rows])
        }

    @torch.inference_mode()
    def begin_episodes(self, copies: np.ndarray) -> None:
        """New episodes in these copies: initial states, and modules drawn anew where the map says so."""
        before = self.assignment.slots
        redrawn = self.assignment.begin_episodes(copies)
        for module_id, state in self.states.items():
            if redrawn:
                self.states[module_id] = state = self._carried(module_id, state, before.get(module_id, NO_ROWS))
            rows = torch.from_numpy(np.flatnonzero(np.isin(self._copies(module_id), copies)))
            initial = self.modules[module_id].get_initial_state()
            for name, value in state.items():
                value[rows] = torch.as_tensor(initial[name], dtype=value.dtype, device=self.device)

    def _carried(self, module_id: str, state: dict[str, torch.Tensor], before: np.ndarray) -> dict[str, torch.Tensor]:
        """The states as the rows stand now; `before` are the slots of the old rows."""
        carried = self._initial_states(module_id)
        row_of_slot = np.full(self.assignment.num_slots, -1)
        row_of_slot[before] = np.arange(len(before))
        source = row_of_slot[self.assignment.slots.get(module_id, NO_ROWS)]
        stay = np.flatnonzero(source >= 0)
        for name, value in state.items():
            carried[name][torch.from_numpy(stay)] = value[torch.from_numpy(source[stay])]
        return carried

    def get_state(self) -> dict[str, Any]:
        """Who acts for whom, the generator of the draws, and all recurrent states."""
        return {
            "assignment": self.assignment.get_state(),
            "states": {m: {k: v.cpu() for k, v in state.items()} for m, state in self.states.items()},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes back to what `get_state` returned."""
        self.assignment.set_state(state["assignment"])
        self.states = {
            m: {k: v.clone().to(self.device) for k, v in tensors.items()} for m, tensors in state["states"].items()
        }

    @torch.inference_mode()
    def act(
        self, grouped: Mapping[str, Arrays], explore: bool, acting: Mapping[str, np.ndarray] | None = None
    ) -> tuple[dict[str, Decision], dict[str, np.ndarray]]:
        """Decides for every agent of every copy, or for those that act.

        Args:
            grouped: group -> observations (B, N, ...).
            explore: sample from the policy (True) or take its mode (False).
            acting: `World.acting`. The recurrent states of others stay, and their columns and actions hold zeros.

        Returns:
            group -> `Decision` (actions, inputs of their distribution and, where the policy explores, log p), and
            group -> actions for the world (B, N, ...).
        """
        decisions: dict[str, Decision] = {group.name: {} for group in self.map.groups}
        for module_id, parts in self.assignment.parts.items():
            rows = None
            if acting is not None:
                parts, rows = _acting_parts(parts, acting)
                if not parts:
                    continue
            self._scatter(parts, self._decide(module_id, self._gather(parts, grouped), explore, rows), decisions)
        return decisions, {g.name: self._actions(g, decisions[g.name]) for g in self.map.groups}

    def _actions(self, group: AgentGroup, decision: Decision) -> np.ndarray:
        space = group.action_space
        if not decision:  # nobody of this group acts
            return np.zeros((self.num_envs, len(group.agents), *(space.shape or ())), space.dtype)
        return to_world(space, decision[Columns.ACTIONS])

    def _scatter(self, parts: Parts, columns: Decision, decisions: dict[str, Decision]) -> None:
        """Writes a module's columns (R, ...) to where its agents stand in their groups' (B, N, ...)."""
        start = 0
        for name, places in parts:
            shape = self.assignment.owner[name].shape
            stop = start + (shape[0] * shape[1] if places is None else len(places))
            for column, rows in columns.items():
                if places is None:
                    decisions[name][column] = rows[start:stop].reshape(*shape, *rows.shape[1:])
                    continue
                if column not in decisions[name]:
                    decisions[name][column] = np.zeros((*shape, *rows.shape[1:]), rows.dtype)
                flat = decisions[name][column].reshape(shape[0] * shape[1], *rows.shape[1:])
                flat[places] = rows[start:stop]
            start = stop

    @staticmethod
    def _gather(parts: Parts, grouped: Mapping[str, Arrays]) -> Arrays:
        """The rows of a module, (R, ...)."""

        def rows_of(array: Array, places: np.ndarray | None) -> Array:
            rows = array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])
            return rows if places is None else rows[places]

        picked = [tree_map(lambda a, p=places: rows_of(a, p), grouped[name]) for name, places in parts]
        return tree_map(joined, *picked)

    def _decide(self, module_id: str, seen: Arrays, explore: bool, rows: np.ndarray | None) -> Decision:
        """One forward pass: observations (R, ...) of all the module's rows, or of some -> columns (R, ...)."""
        module = self.modules[module_id]
        stateful, team = module_id in self.states, self.teams.get(module_id)
        if team is not None and rows is not None:
            raise ValueError(f"module {module_id} talks: all of its agents must act in every step of the world")
        some = None if rows is None else torch.from_numpy(rows).to(self.device)

        def to_tensor(array: Array) -> torch.Tensor:
            tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(array))
            tensor = tensor.to(self.device)
            if team is not None:
                return team.teams(tensor)
            return tensor.unsqueeze(1) if stateful else tensor  # a memory takes (R, T, ...)

        batch: dict[str, Any] = {Columns.OBS: tree_map(to_tensor, seen)}
        if stateful:
            state = self.states[module_id]
            batch[Columns.STATE_IN] = state if some is None else {name: value[some] for name, value in state.items()}
        # The modules' own methods: RLlib's wrappers walk through all submodules to set their mode, at every step.
        out = module._forward_exploration(batch) if explore else module._forward_inference(batch)
        drawn = module.drawn_columns if explore and team is not None else ()
        if team is not None:
            out = {name: team.rows(out[name]) for name in (Columns.ACTION_DIST_INPUTS, *drawn)}
        inputs = out[Columns.ACTION_DIST_INPUTS]
        if stateful:
            after, inputs = out[Columns.STATE_OUT], inputs[:, 0]
            if some is not None:
                after = {name: value.index_copy(0, some, after[name]) for name, value in state.items()}
            self.states[module_id] = after
        dist_class = module.get_exploration_action_dist_cls() if explore else module.get_inference_action_dist_cls()
        if Columns.ACTIONS in out:  # the module has chosen itself
            actions, logp = out[Columns.ACTIONS], out[Columns.ACTION_LOGP] if explore else None
        else:
            actions, logp = draw(dist_class, inputs, explore)
        columns = {Columns.ACTIONS: actions, Columns.ACTION_DIST_INPUTS: inputs, **{name: out[name] for name in drawn}}
        if logp is not None:
            columns[Columns.ACTION_LOGP] = logp
        return {name: value.cpu().numpy() for name, value in columns.items()}


def _acting_parts(parts: Parts, acting: Mapping[str, np.ndarray]) -> tuple[Parts, np.ndarray]:
    """Where the rows of a module come from that act now, and which of its rows they are."""
    present: Parts = []
    rows, start = [], 0
    for name, places in parts:
        acts = acting[name].reshape(-1) if places is None else acting[name].reshape(-1)[places]
        here = np.flatnonzero(acts)
        if len(here):
            present.append((name, here if places is None else places[here]))
            rows.append(start + here)
        start += len(acts)
    return present, np.concatenate(rows) if rows else NO_ROWS


def to_world(space: gym.Space, actions: np.ndarray) -> np.ndarray:
    """Box actions leave the policy in terms of [-1, 1] and are stretched to the space's bounds, as by RLlib."""
    return np.asarray(unsquash_action(actions, space)) if isinstance(space, gym.spaces.Box) else actions
