"""Chooses the actions of all agents in all copies, by one forward pass per module and timestep: the inner loop of
sampling and of evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.utils.spaces.space_utils import unsquash_action

from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.trees import Array, joined, tree_map
from marl_tune.modules.communication import TeamAPI
from marl_tune.sampling.action_sampling import sample_actions
from marl_tune.sampling.assignment import Assignment, AssignmentState, RowSources, Seed
from marl_tune.sampling.recurrent_states import NamedStates
from marl_tune.sampling.team_order import TeamOrder
from marl_tune.sharing.policy_map import PolicyMap

Arrays = Any  # Array; or a dict of arrays, nested or not, if the observation space is a Dict
NO_ROWS = np.empty(0, np.int64)
Decision = dict[str, np.ndarray]
# column (RLlib's `Columns`) -> (B, N, ...): what the agents of one group decided in one timestep
StateTensors = dict[str, torch.Tensor]  # name of a recurrent state -> (R, ...), in the order of the module's rows


class PoliciesState(TypedDict):
    """State of a `Policies`."""

    assignment: AssignmentState
    states: dict[str, StateTensors]  # stateful module -> its states, on the CPU


class Policies:
    """The modules that act, together with the recurrent state of every agent in every copy.

    >>> from marl_tune.envs import default_config, make_world
    >>> from marl_tune.modules.testing import build
    >>> world = make_world(default_config("ant_colony", n_agents=2), num_envs=3)
    >>> (ants,) = world.groups
    >>> modules = {"shared": build("mlp", ants.observation_space, ants.action_space)}
    >>> policies = Policies(modules, PolicyMap(world.groups, dict.fromkeys(ants.agents, "shared")), num_envs=3)
    >>> policies.act(world.reset([1, 2, 3]), explore=True)[1]["ants"].shape  # actions for the environment
    (3, 2)

    Args:
        modules: module id -> RLModule (any `nn.Module` with RLlib's forward methods).
        policy_map: which module acts for which agent.
        num_envs: B, the number of copies.
        device: of the modules.
        seed: of the choice of modules, if it changes from episode to episode.

    Raises:
        ValueError: if a module that sends messages does not act for the same agents in every episode and copy.
    """

    def __init__(
        self,
        modules: Mapping[str, RLModule],
        policy_map: PolicyMap,
        num_envs: int,
        device: torch.device | str = "cpu",
        seed: Seed = None,
    ):
        self.modules, self.policy_map, self.num_envs, self.device = modules, policy_map, num_envs, device
        self.assignment = Assignment(policy_map, num_envs, seed)
        for module in modules.values():
            module.eval()  # once: the forward methods that `_decide` calls do not change the mode
        self.states: dict[str, StateTensors] = {}  # stateful module -> the recurrent states of its agents
        for module_id in policy_map.module_ids:
            if modules[module_id].is_stateful():
                self.states[module_id] = self._initial_states(module_id)
        self.team_orders = {m: self._team_order(m, mod) for m, mod in modules.items() if isinstance(mod, TeamAPI)}

    def _team_order(self, module_id: str, module: TeamAPI) -> TeamOrder:
        if self.policy_map.draw is not None:
            raise ValueError(f"module {module_id} talks: it needs the same agents in every episode, not drawn ones")
        return TeamOrder(module_id, self._copy_of_row(module_id), module.team_size, self.device)

    def _copy_of_row(self, module_id: str) -> np.ndarray:
        return self.assignment.copy_of_row.get(module_id, NO_ROWS)

    def _initial_states(self, module_id: str) -> StateTensors:
        rows, initial = len(self._copy_of_row(module_id)), self.modules[module_id].get_initial_state()
        return {
            name: torch.as_tensor(value, device=self.device).unsqueeze(0).repeat(rows, *[1] * np.ndim(value))
            for name, value in initial.items()
        }

    def states_of_agents(self, group: str, places: np.ndarray) -> Iterator[tuple[str, np.ndarray, NamedStates]]:
        """Yields copies of the present recurrent states of some agents of a group, module by module.

        Args:
            group: name of the group.
            places: (K,) numbers b N + n of the agents: copy b, column n.

        Yields:
            For each recurrent module that acts for k >= 1 of them: its id, the (k,) indices into `places`, and
            name -> (k, ...).
        """
        owners = self.assignment.module_numbers[group].reshape(-1)[places]
        for module_id, state in self.states.items():
            which = np.flatnonzero(owners == self.policy_map.module_ids.index(module_id))
            if len(which):
                rows = torch.from_numpy(self.assignment.rows_of(module_id, group, places[which])).to(self.device)
                yield module_id, which, {name: value[rows].cpu().numpy() for name, value in state.items()}

    def states_of_copies(self, module_id: str, copies: np.ndarray) -> dict[int, NamedStates]:
        """Returns copies of the present recurrent states of a module's agents in some copies of the environment.

        Returns:
            Copy -> name -> (n, ...) for the n agents that the module acts for there.
        """
        of_row = self._copy_of_row(module_id)
        rows = np.flatnonzero(np.isin(of_row, copies))
        picked = {name: value[torch.from_numpy(rows)].cpu().numpy() for name, value in self.states[module_id].items()}
        return {
            int(copy): {name: value[of_row[rows] == copy] for name, value in picked.items()}
            for copy in np.unique(of_row[rows])
        }

    @torch.inference_mode()
    def begin_episodes(self, copies: np.ndarray) -> None:
        """Begins new episodes in these copies: with initial states, and with newly chosen modules if they change."""
        slots_before = self.assignment.slots
        modules_changed = self.assignment.begin_episodes(copies)
        for module_id, state in self.states.items():
            if modules_changed:
                slots = slots_before.get(module_id, NO_ROWS)
                self.states[module_id] = state = self._states_of_new_rows(module_id, state, slots)
            rows = torch.from_numpy(np.flatnonzero(np.isin(self._copy_of_row(module_id), copies)))
            initial = self.modules[module_id].get_initial_state()
            for name, value in state.items():
                value[rows] = torch.as_tensor(initial[name], dtype=value.dtype, device=self.device)

    def _states_of_new_rows(self, module_id: str, state: StateTensors, old_slots: np.ndarray) -> StateTensors:
        """Brings the states into the order of the present rows; `old_slots` are the slots of the rows of `state`."""
        new_state = self._initial_states(module_id)
        row_of_slot = np.full(self.assignment.num_slots, -1)
        row_of_slot[old_slots] = np.arange(len(old_slots))
        source = row_of_slot[self.assignment.slots.get(module_id, NO_ROWS)]
        stay = np.flatnonzero(source >= 0)
        for name, value in state.items():
            new_state[name][torch.from_numpy(stay)] = value[torch.from_numpy(source[stay])]
        return new_state

    def get_state(self) -> PoliciesState:
        """Returns which module acts for which agent, the random generator of this choice, and all recurrent states."""
        return {
            "assignment": self.assignment.get_state(),
            "states": {m: {k: v.cpu() for k, v in state.items()} for m, state in self.states.items()},
        }

    def set_state(self, state: PoliciesState) -> None:
        """Restores what `get_state` returned."""
        self.assignment.set_state(state["assignment"])
        self.states = {
            m: {k: v.clone().to(self.device) for k, v in tensors.items()} for m, tensors in state["states"].items()
        }

    @torch.inference_mode()
    def act(
        self, observations: Mapping[str, Arrays], explore: bool, acting: Mapping[str, np.ndarray] | None = None
    ) -> tuple[dict[str, Decision], dict[str, np.ndarray]]:
        """Chooses the actions of all agents in all copies, or of those that act.

        Args:
            observations: group -> (B, N, ...).
            explore: sample from the policy (True) or take its mode (False).
            acting: `World.acting`. Other agents keep their recurrent states; their columns and actions are 0.

        Returns:
            group -> `Decision` (actions, inputs of the action distribution and, if `explore`, log-probabilities), and
            group -> actions for the environment (B, N, ...).

        Raises:
            ValueError: if an agent whose module sends messages does not act.
            RuntimeError: if the logits of a policy are not finite.
        """
        decisions: dict[str, Decision] = {group.name: {} for group in self.policy_map.groups}
        for module_id, sources in self.assignment.row_sources.items():
            rows = None
            if acting is not None:
                sources, rows = _acting_rows(sources, acting)
                if not sources:
                    continue
            seen = self._gather(sources, observations)
            self._scatter(sources, self._decide(module_id, seen, explore, rows), decisions)
        return decisions, {g.name: self._env_actions(g, decisions[g.name]) for g in self.policy_map.groups}

    def _env_actions(self, group: AgentGroup, decision: Decision) -> np.ndarray:
        space = group.action_space
        if not decision:  # nobody of this group acts
            return np.zeros((self.num_envs, len(group.agents), *(space.shape or ())), space.dtype)
        return env_actions(space, decision[Columns.ACTIONS])

    def _scatter(self, sources: RowSources, columns: Decision, decisions: dict[str, Decision]) -> None:
        """Writes a module's columns (R, ...) to the places of its agents in the arrays (B, N, ...) of their groups."""
        start = 0
        for name, places in sources:
            shape = self.assignment.module_numbers[name].shape
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
    def _gather(sources: RowSources, observations: Mapping[str, Arrays]) -> Arrays:
        """The observations (R, ...) of a module's rows."""

        def rows_of(array: Array, places: np.ndarray | None) -> Array:
            rows = array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])
            return rows if places is None else rows[places]

        picked = [tree_map(lambda a, p=places: rows_of(a, p), observations[name]) for name, places in sources]
        return tree_map(joined, *picked)

    def _decide(self, module_id: str, seen: Arrays, explore: bool, rows: np.ndarray | None) -> Decision:
        """One forward pass: observations (R, ...) of the module's rows, or of `rows` only -> columns (R, ...)."""
        module = self.modules[module_id]
        stateful, team = module_id in self.states, self.team_orders.get(module_id)
        if team is not None and rows is not None:
            raise ValueError(f"module {module_id} talks: all of its agents must act in every step of the world")
        some = None if rows is None else torch.from_numpy(rows).to(self.device)

        def to_tensor(array: Array) -> torch.Tensor:
            tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(array))
            tensor = tensor.to(self.device)
            if team is not None:
                return team.to_teams(tensor)
            return tensor.unsqueeze(1) if stateful else tensor  # recurrent modules take (R, T, ...)

        batch: dict[str, Arrays] = {Columns.OBS: tree_map(to_tensor, seen)}
        if stateful:
            state = self.states[module_id]
            batch[Columns.STATE_IN] = state if some is None else {name: value[some] for name, value in state.items()}
        # RLlib's public methods around these set the mode of all submodules at every step, which is slow.
        out = module._forward_exploration(batch) if explore else module._forward_inference(batch)
        drawn = module.drawn_columns if explore and team is not None else ()
        if team is not None:
            out = {name: team.to_rows(out[name]) for name in (Columns.ACTION_DIST_INPUTS, *drawn)}
        inputs = out[Columns.ACTION_DIST_INPUTS]
        if stateful:
            after, inputs = out[Columns.STATE_OUT], inputs[:, 0]
            if some is not None:
                after = {name: value.index_copy(0, some, after[name]) for name, value in state.items()}
            self.states[module_id] = after
        dist_class = module.get_exploration_action_dist_cls() if explore else module.get_inference_action_dist_cls()
        if Columns.ACTIONS in out:  # the module samples actions itself
            actions, logp = out[Columns.ACTIONS], out[Columns.ACTION_LOGP] if explore else None
        else:
            actions, logp = sample_actions(dist_class, inputs, explore)
        columns = {Columns.ACTIONS: actions, Columns.ACTION_DIST_INPUTS: inputs, **{name: out[name] for name in drawn}}
        if logp is not None:
            columns[Columns.ACTION_LOGP] = logp
        return {name: value.cpu().numpy() for name, value in columns.items()}


def _acting_rows(sources: RowSources, acting: Mapping[str, np.ndarray]) -> tuple[RowSources, np.ndarray]:
    """Where the module's rows of agents that act come from, and the numbers of these rows."""
    acting_sources: RowSources = []
    rows, start = [], 0
    for name, places in sources:
        acts = acting[name].reshape(-1) if places is None else acting[name].reshape(-1)[places]
        here = np.flatnonzero(acts)
        if len(here):
            acting_sources.append((name, here if places is None else places[here]))
            rows.append(start + here)
        start += len(acts)
    return acting_sources, np.concatenate(rows) if rows else NO_ROWS


def env_actions(space: gym.Space, actions: np.ndarray) -> np.ndarray:
    """Returns actions as the environment takes them. Box actions of a policy in [-1, 1] are stretched to the bounds of
    the space, as RLlib does."""
    return np.asarray(unsquash_action(actions, space)) if isinstance(space, gym.spaces.Box) else actions
