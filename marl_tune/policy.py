"""One forward pass per module and step over all copies of a world and all agents: the inner loop of sampling and of
evaluation.

A `PolicyMap` knows which agents (rows of which group's arrays) each RLModule controls. `Policies.act` takes the
grouped observations of B copies (group -> (B, N, ...)), runs each module once over its B x n rows and returns grouped
actions plus what the learner needs of each module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.utils.spaces.space_utils import unsquash_action

from envs.world import AgentGroup

Arrays = Any  # np.ndarray, or a dict of them where the observation space is a Dict


def tree_map(function, *structures):
    """Applies `function` to arrays, or key by key to dicts of arrays."""
    if isinstance(structures[0], dict):
        return {key: tree_map(function, *(s[key] for s in structures)) for key in structures[0]}
    return function(*structures)


@dataclass(frozen=True)
class ModuleAgents:
    """The agents that one module controls, in the order in which its rows stand."""

    module_id: str
    parts: tuple[tuple[str, tuple[int, ...]], ...]  # (group, columns of that group's arrays)
    agents: tuple[str, ...]
    observation_space: gym.Space
    action_space: gym.Space
    slices: tuple[slice | np.ndarray, ...] = field(compare=False, default=())

    def gather(self, grouped: Mapping[str, Arrays]) -> Arrays:
        """Grouped arrays (B, N, ...) -> this module's rows (B, n, ...); a view where the module owns a whole group."""
        picked = [
            tree_map(lambda a, c=columns: a[:, c], grouped[group])
            for (group, _), columns in zip(self.parts, self.slices, strict=True)
        ]
        return picked[0] if len(picked) == 1 else tree_map(lambda *a: np.concatenate(a, axis=1), *picked)


class PolicyMap:
    """Which module acts for which agent; static over a run.

    Args:
        groups: the world's agent groups.
        module_of: agent id -> module id.

    Raises:
        ValueError: if two agents with different spaces share a module.
    """

    def __init__(self, groups: Sequence[AgentGroup], module_of: Mapping[str, str]):
        self.groups = tuple(groups)
        self.module_of = dict(module_of)
        columns: dict[str, dict[str, list[int]]] = {}
        for group in groups:
            for column, agent in enumerate(group.agents):
                columns.setdefault(module_of[agent], {}).setdefault(group.name, []).append(column)
        self.modules = {module_id: self._agents_of(module_id, parts) for module_id, parts in columns.items()}

    def _agents_of(self, module_id: str, parts: dict[str, list[int]]) -> ModuleAgents:
        by_name = {group.name: group for group in self.groups}
        first = by_name[next(iter(parts))]
        for name in parts:
            if (by_name[name].observation_space, by_name[name].action_space) != (
                first.observation_space,
                first.action_space,
            ):
                raise ValueError(f"module {module_id} cannot serve both {first.name} and {name}: their spaces differ")
        return ModuleAgents(
            module_id=module_id,
            parts=tuple((name, tuple(cols)) for name, cols in parts.items()),
            agents=tuple(by_name[name].agents[c] for name, cols in parts.items() for c in cols),
            observation_space=first.observation_space,
            action_space=first.action_space,
            slices=tuple(
                slice(None) if len(cols) == len(by_name[name].agents) else np.array(cols)
                for name, cols in parts.items()
            ),
        )

    def scatter(self, per_module: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Per-module arrays (B, n, ...) -> grouped arrays (B, N, ...)."""
        grouped: dict[str, np.ndarray] = {}
        for module_id, agents in self.modules.items():
            rows, start = per_module[module_id], 0
            for (group, columns), where in zip(agents.parts, agents.slices, strict=True):
                part = rows[:, start : start + len(columns)]
                start += len(columns)
                if isinstance(where, slice):
                    grouped[group] = part
                    continue
                if group not in grouped:
                    n_agents = len(next(g.agents for g in self.groups if g.name == group))
                    grouped[group] = np.empty((rows.shape[0], n_agents, *rows.shape[2:]), rows.dtype)
                grouped[group][:, where] = part
        return grouped


@dataclass
class Decision:
    """What one module decided for its rows in one step; every array is (B, n, ...)."""

    actions: np.ndarray
    logp: np.ndarray | None
    dist_inputs: np.ndarray


class Policies:
    """Modules with the recurrent state of every (copy, agent); acts for all of them at once.

    Args:
        modules: module id -> RLModule (any `nn.Module` with RLlib's forward methods).
        policy_map: who controls whom.
        num_envs: B, the copies of the world.
        device: where the modules live.
    """

    def __init__(self, modules: Mapping[str, RLModule], policy_map: PolicyMap, num_envs: int, device: Any = "cpu"):
        self.modules, self.map, self.num_envs, self.device = modules, policy_map, num_envs, device
        self.states: dict[str, dict[str, torch.Tensor]] = {}
        for module_id, agents in policy_map.modules.items():
            module = modules[module_id]
            if module.is_stateful():
                initial = module.get_initial_state()
                rows = num_envs * len(agents.agents)
                self.states[module_id] = {
                    name: torch.as_tensor(value, device=device).unsqueeze(0).repeat(rows, *[1] * np.ndim(value))
                    for name, value in initial.items()
                }

    def state_of(self, module_id: str, copy: int) -> dict[str, np.ndarray]:
        """The state of one copy's agents of a module: name -> (n, ...), copied."""
        n = len(self.map.modules[module_id].agents)
        return {k: v[copy * n : (copy + 1) * n].cpu().numpy().copy() for k, v in self.states[module_id].items()}

    @torch.inference_mode()
    def reset(self, copies: np.ndarray) -> None:
        """Sets the state of the agents of these copies back to the initial one (an episode begins)."""
        for module_id, state in self.states.items():
            n = len(self.map.modules[module_id].agents)
            rows = torch.as_tensor((copies[:, None] * n + np.arange(n)).ravel(), device=self.device)
            initial = self.modules[module_id].get_initial_state()
            for name, value in state.items():
                value[rows] = torch.as_tensor(initial[name], dtype=value.dtype, device=self.device)

    @torch.inference_mode()
    def act(self, grouped: Mapping[str, Arrays], explore: bool) -> tuple[dict[str, Decision], dict[str, np.ndarray]]:
        """Decides for every agent of every copy.

        Args:
            grouped: group -> observations (B, N, ...).
            explore: sample from the policy (True) or take its mode (False).

        Returns:
            module id -> `Decision`, and group -> actions for the world (B, N, ...).
        """
        decisions = {}
        for module_id, agents in self.map.modules.items():
            decisions[module_id] = self._decide(module_id, agents, grouped, explore)
        return decisions, self.map.scatter({m: self.to_world(m, d.actions) for m, d in decisions.items()})

    def _decide(self, module_id: str, agents: ModuleAgents, grouped: Mapping[str, Arrays], explore: bool) -> Decision:
        module = self.modules[module_id]
        shape = (self.num_envs, len(agents.agents))
        stateful = module_id in self.states
        time = (1,) if stateful else ()

        def to_rows(array: np.ndarray) -> torch.Tensor:
            rows = np.ascontiguousarray(array).reshape(shape[0] * shape[1], *time, *array.shape[2:])
            return torch.from_numpy(rows).to(self.device)

        batch: dict[str, Any] = {Columns.OBS: tree_map(to_rows, agents.gather(grouped))}
        if stateful:
            batch[Columns.STATE_IN] = self.states[module_id]
        out = module.forward_exploration(batch) if explore else module.forward_inference(batch)
        if stateful:
            self.states[module_id] = out[Columns.STATE_OUT]
        inputs = out[Columns.ACTION_DIST_INPUTS]
        inputs = inputs[:, 0] if stateful else inputs
        dist_class = module.get_exploration_action_dist_cls() if explore else module.get_inference_action_dist_cls()
        dist = dist_class.from_logits(inputs)
        actions = dist.sample() if explore else dist.to_deterministic().sample()
        logp = dist.logp(actions).cpu().numpy().reshape(shape) if explore else None
        return Decision(
            actions=actions.cpu().numpy().reshape(*shape, *actions.shape[1:]),
            logp=logp,
            dist_inputs=inputs.cpu().numpy().reshape(*shape, *inputs.shape[1:]),
        )

    def to_world(self, module_id: str, actions: np.ndarray) -> np.ndarray:
        """Box actions leave the policy in terms of [-1, 1] and are stretched to the space's bounds, as by RLlib."""
        space = self.map.modules[module_id].action_space
        return np.asarray(unsquash_action(actions, space)) if isinstance(space, gym.spaces.Box) else actions
