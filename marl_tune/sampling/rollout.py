"""Collects fragments of experience from a batched world, whose copies go on from fragment to fragment.

RLlib's MultiAgentEnvRunner keeps Python objects per agent and step. Here a step touches arrays of shape (B, N, ...)
only; when the fragment is full, it is cut into segments (the part of one episode of one copy that lies in the
fragment), and each segment yields one `SingleAgentEpisode` per agent, which RLlib's learners (and any number of them)
take as they are.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.trees import Array, copied, tree_map
from marl_tune.envs.world import Step, World
from marl_tune.sampling.assignment import Seed
from marl_tune.sampling.episode_metrics import EpisodeRecord
from marl_tune.sampling.episode_pieces import Segment, new_episode_id
from marl_tune.sampling.fragment import Fragment
from marl_tune.sampling.policies import Policies

EPISODE_CHUNK = 32  # steps between two looks at which episodes have ended


class Rollout:
    """Steps B copies of a world with the given policies and remembers where each copy is in its episode.

    Args:
        world: the batched world.
        policies: who acts; its `num_envs` is the world's.
        max_seq_len: module id -> steps of a training sequence, for stateful modules. The state is stored at sequence
            starts only: a trace of 64x64 floats per agent and step would be 50 times the observations.
        seed: seeds the copies' generators at the first reset; None leaves them unseeded.
        with_state: whether pieces carry the state of the world too, for a central critic (`state_rows`).
    """

    def __init__(
        self,
        world: World,
        policies: Policies,
        max_seq_len: dict[str, int],
        seed: Seed = None,
        with_state: bool = False,
    ):
        self.with_state = with_state
        self.world, self.policies, self.max_seq_len = world, policies, max_seq_len
        copies = world.num_envs
        seeds = None if seed is None else [int(s) for s in np.random.SeedSequence(seed).generate_state(copies)]
        self.observations = world.reset(seeds)
        self.episode_step = np.zeros(copies, dtype=np.int64)
        self._episode_ids = [new_episode_id() for _ in range(copies)]
        self._returns = {g.name: np.zeros((copies, len(g.agents)), np.float64) for g in world.groups}
        self._began = np.full(copies, time.perf_counter())
        self._modules = [self._modules_of(copy) for copy in range(copies)]
        self._learners: dict[str, str] = {}  # episode -> the one module that learns from it, where there is only one
        self._note_learners(range(copies))
        self.finished: list[EpisodeRecord] = []
        self.env_steps = 0  # of all copies together

    def sample(self, num_steps: int, explore: bool = True) -> list[SingleAgentEpisode]:
        """Steps every copy `num_steps` times.

        Returns:
            One episode piece per agent and segment; together num_steps x B x N agent-steps.
        """
        fragment = Fragment(self.world.groups, num_steps, self.world.num_envs, self.max_seq_len)
        segments = [self._open(b, 0) for b in range(self.world.num_envs)]
        closed: list[Segment] = []
        for t in range(num_steps):
            self._see(fragment, t)
            self._store_sequence_states(segments, t)
            decisions, actions = self.policies.act(self.observations, explore)
            step = self.world.step(actions)
            fragment.put(t, decisions, step.rewards)
            self.observations = step.observations
            self._count(step)
            done = np.flatnonzero(step.terminated | step.truncated)
            if len(done):
                self._store_sequence_states([segments[b] for b in done], t + 1)
                states = self.world.state(self.observations) if self.with_state else None
                for b in done:
                    closed.append(self._ended(segments[b], t + 1, bool(step.terminated[b]), states))
                self._begin_episodes(done)
                for b in done:
                    segments[b] = self._open(int(b), t + 1)
        self._see(fragment, num_steps)
        open_segments = [segment for segment in segments if segment.start < num_steps]
        self._store_sequence_states(open_segments, num_steps)
        for segment in open_segments:
            segment.stop = num_steps
        return fragment.pieces(closed + open_segments)

    def _see(self, fragment: Fragment, t: int) -> None:
        fragment.see(t, self.observations)
        if self.with_state:
            fragment.see_world(t, self.world.state(self.observations))

    def _count(self, step: Step) -> None:
        """Keeps the episodes' books."""
        self.env_steps += self.world.num_envs
        self.episode_step += 1
        for name, rewards in step.rewards.items():
            self._returns[name] += rewards

    def sample_episodes(self, num_episodes: int, explore: bool = True) -> list[SingleAgentEpisode]:
        """Plays whole episodes, the same number in every copy (one more in the first ones): short ones count no more
        than long ones, as they would if the first to end were taken. `finished` then holds just these.

        Returns:
            Their pieces.
        """
        copies = self.world.num_envs
        quota = np.full(copies, num_episodes // copies) + (np.arange(copies) < num_episodes % copies)
        pieces: list[SingleAgentEpisode] = []
        while np.any(np.bincount([record.copy for record in self.finished], minlength=copies) < quota):
            pieces += self.sample(EPISODE_CHUNK, explore)
        counted = [[r for r in self.finished if r.copy == copy][: quota[copy]] for copy in range(copies)]
        self.finished = [record for records in counted for record in records]
        ids = {record.id for record in self.finished}
        return [piece for piece in pieces if piece.multi_agent_episode_id in ids]

    def learned_from(self, pieces: list[SingleAgentEpisode]) -> list[SingleAgentEpisode]:
        """Of the pieces just sampled those of modules that learn from the game; see `Matchmaker`."""
        if self.policies.map.matchmaker is None:
            return pieces
        kept = [piece for piece in pieces if piece.module_id == self._learners[piece.multi_agent_episode_id]]
        self._learners = {episode: self._learners[episode] for episode in self._episode_ids}
        return kept

    def _note_learners(self, copies: Iterable[int]) -> None:
        matchmaker = self.policies.map.matchmaker
        if matchmaker is not None:
            turns = self.policies.assignment.turns
            self._learners |= {self._episode_ids[b]: matchmaker.learner(int(turns[b])) for b in copies}

    def get_state(self) -> dict[str, Any]:
        """Where every copy stands, for `set_state` of a rollout of the same structure."""
        return {
            "world": self.world.get_state(),
            "observations": self.observations,
            "episode_step": self.episode_step.copy(),
            "returns": {name: value.copy() for name, value in self._returns.items()},
            "policies": self.policies.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where `get_state` was called."""
        self.world.set_state(state["world"])
        self.observations = state["observations"]
        self.episode_step = state["episode_step"].copy()
        self._returns = {name: value.copy() for name, value in state["returns"].items()}
        self.policies.set_state(state["policies"])
        self._modules = [self._modules_of(copy) for copy in range(self.world.num_envs)]
        self._note_learners(range(self.world.num_envs))

    def _modules_of(self, copy: int) -> dict[str, tuple[str, ...]]:
        """Group -> module id of each of its agents, in the present episode of a copy."""
        ids = self.policies.map.module_ids
        return {name: tuple(ids[k] for k in owner[copy]) for name, owner in self.policies.assignment.owner.items()}

    def _open(self, copy: int, t: int) -> Segment:
        started = int(self.episode_step[copy])
        return Segment(copy, t, t, started, self._episode_ids[copy], self._modules[copy])

    def _ended(self, segment: Segment, stop: int, terminated: bool, states: Array | None) -> Segment:
        """Closes the segment of an episode that has ended, with its true last observation, and state if recorded."""
        segment.stop, segment.terminated, segment.truncated = stop, terminated, not terminated
        segment.last = {
            name: tree_map(lambda a: copied(a[segment.copy]), seen) for name, seen in self.observations.items()
        }
        segment.last_world = None if states is None else states[segment.copy]
        return segment

    def _store_sequence_states(self, segments: list[Segment], t: int) -> None:
        """Keeps the state of each copy that begins a training sequence at step t of the fragment.

        Also after the last step of a segment, where a sequence would begin: it serves the bootstrap value.
        """
        for module_id in self.policies.states:
            length = self.max_seq_len[module_id]
            starting = {s.copy: s for s in segments if (t - s.start) % length == 0}
            if starting:
                states = self.policies.states_of(module_id, np.fromiter(starting, np.int64))
                for copy, state in states.items():
                    starting[copy].states.setdefault(module_id, []).append(state)

    def _begin_episodes(self, done: np.ndarray) -> None:
        """Records the finished episodes and resets their copies."""
        now, metrics = time.perf_counter(), self.world.episode_metrics(done)
        for i, b in enumerate(done):
            own = {name: float(values[i]) for name, values in metrics.items()}
            self.finished.append(self._record(int(b), own, float(now - self._began[b])))
            self._episode_ids[b] = new_episode_id()
        for returns_of in self._returns.values():
            returns_of[done] = 0.0
        self.episode_step[done], self._began[done] = 0, now
        self.policies.begin_episodes(done)
        if self.policies.map.draw is not None:
            for b in done:
                self._modules[b] = self._modules_of(b)
            self._note_learners(done.tolist())
        self.observations = self.world.reset(copies=done)

    def _record(self, copy: int, metrics: dict[str, float], seconds: float) -> EpisodeRecord:
        returns, modules = {}, {}
        of_modules = dict.fromkeys(self.policies.map.module_ids, 0.0)
        for group in self.world.groups:
            for column, (agent, module_id) in enumerate(
                zip(group.agents, self._modules[copy][group.name], strict=True)
            ):
                earned = float(self._returns[group.name][copy, column])
                of_modules[module_id] += earned
                modules[agent] = module_id
                if group.counted:
                    returns[agent] = earned
        if self.policies.assignment.replaced[copy]:
            modules = {}
        length = int(self.episode_step[copy])
        return EpisodeRecord(self._episode_ids[copy], copy, length, returns, of_modules, modules, metrics, seconds)
