"""Collects fragments of experience from a batched world: arrays first, one RLlib episode per agent and segment last.

RLlib's MultiAgentEnvRunner keeps Python objects per agent and step. Here a step touches arrays of shape (B, N, ...)
only; when the fragment is full, it is cut into segments (the part of one episode of one copy that lies in the
fragment), and each segment yields one `SingleAgentEpisode` per agent, which RLlib's learners (and any number of them)
take as they are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from envs.world import World
from marl_tune.policy import Arrays, ModuleAgents, Policies, tree_map

SEQUENCE_STATES = "sequence_states"  # key of SingleAgentEpisode.custom_data: state name -> (sequences + 1 at most, ...)


@dataclass
class EpisodeRecord:
    """One finished episode of one copy of the world; returns are extrinsic and undiscounted."""

    length: int
    returns: dict[str, float]  # agent -> return
    metrics: dict[str, float]  # the world's own
    seconds: float


@dataclass
class _Segment:
    """Steps [start, stop) of one copy, all of one episode."""

    copy: int
    start: int
    stop: int
    t_started: int  # episode step at which the segment begins
    terminated: bool = False
    truncated: bool = False
    final_observation: dict[str, Arrays] = field(default_factory=dict)  # module -> (n, ...): seen after the last step
    states: dict[str, list[dict[str, np.ndarray]]] = field(
        default_factory=dict
    )  # module -> state at each sequence start


class Rollout:
    """Steps B copies of a world with the given policies and remembers where each copy is in its episode.

    Args:
        world: the batched world.
        policies: who acts; its `num_envs` is the world's.
        max_seq_len: module id -> steps of a training sequence, for stateful modules. The state is stored at sequence
            starts only: a trace of 64x64 floats per agent and step would be 50 times the observations.
        seed: seeds the copies' generators at the first reset; None leaves them unseeded.
    """

    def __init__(self, world: World, policies: Policies, max_seq_len: dict[str, int], seed: int | None = None):
        self.world, self.policies, self.max_seq_len = world, policies, max_seq_len
        copies = world.num_envs
        seeds = None if seed is None else [int(s) for s in np.random.SeedSequence(seed).generate_state(copies)]
        self.observations = world.reset(seeds)
        self.episode_step = np.zeros(copies, dtype=np.int64)
        self._returns = {g.name: np.zeros((copies, len(g.agents)), np.float64) for g in world.groups}
        self._began = np.full(copies, time.perf_counter())
        self.finished: list[EpisodeRecord] = []

    def sample(self, num_steps: int, explore: bool = True) -> list[SingleAgentEpisode]:
        """Steps every copy `num_steps` times.

        Returns:
            One episode piece per agent and segment; together num_steps x B x N agent-steps.
        """
        storage = {m: _ModuleStorage(a, num_steps, self.world.num_envs) for m, a in self.policies.map.modules.items()}
        open_segments = [_Segment(b, 0, 0, int(self.episode_step[b])) for b in range(self.world.num_envs)]
        closed: list[_Segment] = []
        for t in range(num_steps):
            self._store_sequence_states(open_segments, t)
            decisions, actions = self.policies.act(self.observations, explore)
            step = self.world.step(actions)
            for module_id, store in storage.items():
                store.put(t, self.observations, decisions[module_id], step.rewards)
            self.observations = step.observations
            self.episode_step += 1
            for name, rewards in step.rewards.items():
                self._returns[name] += rewards
            done = np.flatnonzero(step.terminated | step.truncated)
            if len(done):
                for b in done:
                    closed.append(self._close(open_segments[b], t + 1, storage, step.terminated[b], step.truncated[b]))
                    open_segments[b] = _Segment(int(b), t + 1, t + 1, 0)
                self._begin_episodes(done)
        closed += [self._close(s, num_steps, storage, False, False) for s in open_segments if s.start < num_steps]
        return [piece for segment in closed for store in storage.values() for piece in store.pieces(segment)]

    def get_state(self) -> dict[str, Any]:
        """Where every copy stands, for `set_state` of a rollout of the same structure."""
        return {
            "world": self.world.get_state(),
            "observations": self.observations,
            "episode_step": self.episode_step.copy(),
            "returns": {name: value.copy() for name, value in self._returns.items()},
            "policies": {m: {k: v.cpu() for k, v in state.items()} for m, state in self.policies.states.items()},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where `get_state` was called."""
        self.world.set_state(state["world"])
        self.observations = state["observations"]
        self.episode_step = state["episode_step"].copy()
        self._returns = {name: value.copy() for name, value in state["returns"].items()}
        for module_id, tensors in state["policies"].items():
            for name, value in tensors.items():
                self.policies.states[module_id][name] = value.clone().to(self.policies.device)

    def _store_sequence_states(self, segments: list[_Segment], t: int) -> None:
        """Keeps the state of each copy that begins a training sequence at step t of the fragment."""
        for module_id in self.policies.states:
            length = self.max_seq_len[module_id]
            for segment in segments:
                if (t - segment.start) % length == 0:
                    states = segment.states.setdefault(module_id, [])
                    states.append(self.policies.state_of(module_id, segment.copy))

    def _close(
        self, segment: _Segment, stop: int, storage: dict[str, _ModuleStorage], terminated: Any, truncated: Any
    ) -> _Segment:
        """Ends a segment: the true last observation, and the state where a sequence would begin after it."""
        segment.stop, segment.terminated = stop, bool(terminated)
        segment.truncated = bool(truncated) and not segment.terminated
        if segment.stop > segment.start:
            self._store_sequence_states([segment], stop)
        for module_id, store in storage.items():
            row = store.agents.gather(tree_map_groups(self.observations, segment.copy))
            segment.final_observation[module_id] = tree_map(lambda a: a[0].copy(), row)
        return segment

    def _begin_episodes(self, done: np.ndarray) -> None:
        """Records the finished episodes and resets their copies."""
        now, metrics = time.perf_counter(), self.world.episode_metrics(done)
        for i, b in enumerate(done):
            returns = {
                agent: float(self._returns[group.name][b, column])
                for group in self.world.groups
                for column, agent in enumerate(group.agents)
            }
            own = {name: float(values[i]) for name, values in metrics.items()}
            record = EpisodeRecord(int(self.episode_step[b]), returns, own, float(now - self._began[b]))
            self.finished.append(record)
        for returns_of in self._returns.values():
            returns_of[done] = 0.0
        self.episode_step[done], self._began[done] = 0, now
        self.policies.reset(done)
        self.observations = self.world.reset(copies=done)


def tree_map_groups(grouped: dict[str, Arrays], copy: int) -> dict[str, Arrays]:
    """Grouped arrays (B, N, ...) -> one copy's (1, N, ...)."""
    return {name: tree_map(lambda a: a[copy : copy + 1], value) for name, value in grouped.items()}


class _ModuleStorage:
    """The fragment of one module: arrays (T, B, n, ...), filled step by step, cut into episodes at the end."""

    def __init__(self, agents: ModuleAgents, num_steps: int, num_envs: int):
        self.agents, self.shape = agents, (num_steps, num_envs, len(agents.agents))
        self.observations: Arrays = None
        self.rewards = np.empty(self.shape, np.float32)
        self.columns: dict[str, np.ndarray] = {}

    def put(self, t: int, observations: dict[str, Arrays], decision: Any, rewards: dict[str, np.ndarray]) -> None:
        """Writes step t."""
        rows = self.agents.gather(observations)
        if self.observations is None:
            self.observations = tree_map(lambda a: np.empty((*self.shape, *a.shape[2:]), a.dtype), rows)
        tree_map(lambda store, a: store.__setitem__(t, a), self.observations, rows)
        self.rewards[t] = self.agents.gather(rewards)
        values = {Columns.ACTIONS: decision.actions, Columns.ACTION_DIST_INPUTS: decision.dist_inputs}
        if decision.logp is not None:
            values[Columns.ACTION_LOGP] = decision.logp
        for name, value in values.items():
            if name not in self.columns:
                self.columns[name] = np.empty((*self.shape, *value.shape[2:]), value.dtype)
            self.columns[name][t] = value

    def pieces(self, segment: _Segment) -> list[SingleAgentEpisode]:
        """One numpy episode per agent for this segment."""
        b, rows = segment.copy, slice(segment.start, segment.stop)
        seen = tree_map(
            lambda store, last: np.concatenate([store[rows, b], last[None]]),
            self.observations,
            segment.final_observation[self.agents.module_id],
        )  # (length + 1, n, ...)
        states = segment.states.get(self.agents.module_id, [])
        return [self._piece(segment, rows, i, agent, seen, states) for i, agent in enumerate(self.agents.agents)]

    def _piece(
        self, segment: _Segment, rows: slice, i: int, agent: str, seen: Arrays, states: list[dict[str, np.ndarray]]
    ) -> SingleAgentEpisode:
        b = segment.copy
        columns = {name: InfiniteLookbackBuffer(array[rows, b, i]) for name, array in self.columns.items()}
        piece = SingleAgentEpisode(
            observations=InfiniteLookbackBuffer(tree_map(lambda a: a[:, i], seen)),
            actions=columns.pop(Columns.ACTIONS),
            rewards=InfiniteLookbackBuffer(self.rewards[rows, b, i]),
            infos=InfiniteLookbackBuffer([{}] * (segment.stop - segment.start + 1)),
            extra_model_outputs=columns,
            terminated=segment.terminated,
            truncated=segment.truncated,
            t_started=segment.t_started,
            len_lookback_buffer=0,
            agent_id=agent,
            module_id=self.agents.module_id,
        )
        if states:
            piece.custom_data[SEQUENCE_STATES] = {
                name: np.stack([state[name][i] for state in states]) for name in states[0]
            }
        return piece
