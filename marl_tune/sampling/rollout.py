"""Samples fragments of experience from the copies of an environment. The copies go on from fragment to fragment.

RLlib's MultiAgentEnvRunner keeps Python objects for each agent and step. Here one step touches only arrays of the shape
(B, N, ...). When the fragment is full, it is cut into segments (the part of one episode of one copy that lies in the
fragment), and each segment gives one `SingleAgentEpisode` per agent. RLlib's learners take these as they are.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.agent_group import Observations
from marl_tune.envs.trees import Array, copied, tree_map
from marl_tune.envs.world import Step, World
from marl_tune.sampling.assignment import Seed
from marl_tune.sampling.episode_metrics import EpisodeRecord
from marl_tune.sampling.episode_pieces import Segment, new_episode_id
from marl_tune.sampling.fragment import Fragment
from marl_tune.sampling.policies import Policies, PoliciesState

EPISODE_CHUNK = 32  # timesteps between two looks at which episodes have ended


class RolloutState(TypedDict):
    """State of a `Rollout` between two fragments."""

    world: dict[str, object]
    observations: Observations
    episode_step: np.ndarray
    returns: dict[str, np.ndarray]
    policies: PoliciesState
    # Only of a `TurnRollout`:
    decisions: NotRequired[dict[str, Any]]  # group -> state of its `GroupDecisions`
    episodes: NotRequired[list[str]]  # ids
    world_states: NotRequired[list[Array]]


class Rollout:
    """Steps B copies of an environment with the given policies, and knows where each copy is in its episode.

    >>> from marl_tune.envs import default_config, make_world
    >>> from marl_tune.sampling.testing import small_policies
    >>> world = make_world(default_config("ant_colony", n_agents=2), num_envs=3)
    >>> pieces = Rollout(world, small_policies(world), max_seq_len={}, seed=0).sample(num_steps=5)
    >>> len(pieces), len(pieces[0])  # one for each agent of each copy, of 5 steps
    (6, 5)

    Args:
        world: the environment.
        policies: who acts; their `num_envs` is the environment's.
        max_seq_len: stateful module -> steps of a training sequence. Recurrent states are stored only at the starts of
            sequences: those of every step (64x64 floats per agent) would be 50 times the observations.
        seed: from which the copies' generators are seeded at the first reset; None leaves them unseeded.
        with_state: whether the pieces carry the global state, too, for a central critic (`state_rows`).
    """

    def __init__(
        self,
        world: World,
        policies: Policies,
        max_seq_len: Mapping[str, int],
        seed: Seed = None,
        with_state: bool = False,
    ):
        self.with_state = with_state
        self.world, self.policies, self.max_seq_len = world, policies, max_seq_len
        copies = world.num_envs
        seeds = None if seed is None else [int(s) for s in np.random.SeedSequence(seed).generate_state(copies)]
        self.observations = world.reset(seeds)
        self.episode_step = np.zeros(copies, dtype=np.int64)  # (B,) timesteps since the start of the episode
        self.episode_ids = [new_episode_id() for _ in range(copies)]
        self._returns = {g.name: np.zeros((copies, len(g.agents)), np.float64) for g in world.groups}
        self._began = np.full(copies, time.perf_counter())
        self.modules_by_copy = [self._modules_of(copy) for copy in range(copies)]
        # copy -> group -> module id of each of its agents, in the present episode
        self._learners: dict[str, str] = {}  # episode -> the one module that learns from it, if there is a matchmaker
        self._note_learners(range(copies))
        self.finished: list[EpisodeRecord] = []
        self.env_steps = 0  # of all copies together

    def sample(self, num_steps: int, explore: bool = True) -> list[SingleAgentEpisode]:
        """Steps every copy `num_steps` times.

        Returns:
            One piece per agent and segment; together num_steps x B x N agent-steps.
        """
        fragment = Fragment(self.world.groups, num_steps, self.world.num_envs, self.max_seq_len)
        segments = [self._begin_segment(b, 0) for b in range(self.world.num_envs)]
        closed: list[Segment] = []
        for t in range(num_steps):
            self._write_observations(fragment, t)
            self._store_sequence_states(segments, t)
            decisions, actions = self.policies.act(self.observations, explore)
            step = self.world.step(actions)
            fragment.write_step(t, decisions, step.rewards)
            self.observations = step.observations
            self.count_step(step)
            done = np.flatnonzero(step.terminated | step.truncated)
            if len(done):
                self._store_sequence_states([segments[b] for b in done], t + 1)
                states = self.world.state(self.observations) if self.with_state else None
                for b in done:
                    closed.append(self._end_segment(segments[b], t + 1, bool(step.terminated[b]), states))
                self.begin_episodes(done)
                for b in done:
                    segments[b] = self._begin_segment(int(b), t + 1)
        self._write_observations(fragment, num_steps)
        open_segments = [segment for segment in segments if segment.start < num_steps]
        self._store_sequence_states(open_segments, num_steps)
        for segment in open_segments:
            segment.stop = num_steps
        return fragment.pieces(closed + open_segments)

    def _write_observations(self, fragment: Fragment, t: int) -> None:
        fragment.write_observations(t, self.observations)
        if self.with_state:
            fragment.write_global_states(t, self.world.state(self.observations))

    def count_step(self, step: Step) -> None:
        """Adds a timestep of all copies to the counters and to the returns of the present episodes."""
        self.env_steps += self.world.num_envs
        self.episode_step += 1
        for name, rewards in step.rewards.items():
            self._returns[name] += rewards

    def sample_episodes(self, num_episodes: int, explore: bool = True) -> list[SingleAgentEpisode]:
        """Plays whole episodes, the same number in every copy (one more in the first copies if need be).

        Taking the first episodes that end would favour short ones. Afterwards, `finished` holds exactly these episodes.

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

    def pieces_to_learn_from(self, pieces: list[SingleAgentEpisode]) -> list[SingleAgentEpisode]:
        """Returns those of the latest pieces whose module learns from the game; all pieces if there are no games.

        See `Matchmaker`: in each game one module learns.
        """
        if self.policies.policy_map.matchmaker is None:
            return pieces
        kept = [piece for piece in pieces if piece.module_id == self._learners[piece.multi_agent_episode_id]]
        self._learners = {episode: self._learners[episode] for episode in self.episode_ids}
        return kept

    def _note_learners(self, copies: Iterable[int]) -> None:
        matchmaker = self.policies.policy_map.matchmaker
        if matchmaker is not None:
            turns = self.policies.assignment.turns
            self._learners |= {self.episode_ids[b]: matchmaker.learner(int(turns[b])) for b in copies}

    def get_state(self) -> RolloutState:
        """Returns the state of every copy and of the policies, for `set_state` of a rollout of the same structure."""
        return {
            "world": self.world.get_state(),
            "observations": self.observations,
            "episode_step": self.episode_step.copy(),
            "returns": {name: value.copy() for name, value in self._returns.items()},
            "policies": self.policies.get_state(),
        }

    def set_state(self, state: RolloutState) -> None:
        """Restores what `get_state` returned: sampling goes on from there."""
        self.world.set_state(state["world"])
        self.observations = state["observations"]
        self.episode_step = state["episode_step"].copy()
        self._returns = {name: value.copy() for name, value in state["returns"].items()}
        self.policies.set_state(state["policies"])
        self.modules_by_copy = [self._modules_of(copy) for copy in range(self.world.num_envs)]
        self._note_learners(range(self.world.num_envs))

    def _modules_of(self, copy: int) -> dict[str, tuple[str, ...]]:
        """Group -> module id of each of its agents, in the present episode of a copy."""
        ids = self.policies.policy_map.module_ids
        numbers = self.policies.assignment.module_numbers
        return {name: tuple(ids[k] for k in of_group[copy]) for name, of_group in numbers.items()}

    def _begin_segment(self, copy: int, t: int) -> Segment:
        started = int(self.episode_step[copy])
        return Segment(copy, t, t, started, self.episode_ids[copy], self.modules_by_copy[copy])

    def _end_segment(self, segment: Segment, stop: int, terminated: bool, states: Array | None) -> Segment:
        """Ends the segment of a finished episode: with its true last observation, and global state if recorded."""
        segment.stop, segment.terminated, segment.truncated = stop, terminated, not terminated
        segment.last = {
            name: tree_map(lambda a: copied(a[segment.copy]), seen) for name, seen in self.observations.items()
        }
        segment.last_global_state = None if states is None else states[segment.copy]
        return segment

    def _store_sequence_states(self, segments: list[Segment], t: int) -> None:
        """Stores the recurrent states of each copy in which a training sequence begins at step t of the fragment.

        This is done after the last step of a segment, too, if a sequence would begin there, for the bootstrap value.
        """
        for module_id in self.policies.states:
            length = self.max_seq_len[module_id]
            starting = {s.copy: s for s in segments if (t - s.start) % length == 0}
            if starting:
                states = self.policies.states_of_copies(module_id, np.fromiter(starting, np.int64))
                for copy, state in states.items():
                    starting[copy].states.setdefault(module_id, []).append(state)

    def begin_episodes(self, done: np.ndarray) -> None:
        """Records the finished episodes of these copies and resets the copies."""
        now, metrics = time.perf_counter(), self.world.episode_metrics(done)
        for i, b in enumerate(done):
            own = {name: float(values[i]) for name, values in metrics.items()}
            self.finished.append(self._record(int(b), own, float(now - self._began[b])))
            self.episode_ids[b] = new_episode_id()
        for of_group in self._returns.values():
            of_group[done] = 0.0
        self.episode_step[done], self._began[done] = 0, now
        self.policies.begin_episodes(done)
        if self.policies.policy_map.draw is not None:
            for b in done:
                self.modules_by_copy[b] = self._modules_of(b)
            self._note_learners(done.tolist())
        self.observations = self.world.reset(copies=done)

    def _record(self, copy: int, metrics: dict[str, float], seconds: float) -> EpisodeRecord:
        returns, modules = {}, {}
        module_returns = dict.fromkeys(self.policies.policy_map.module_ids, 0.0)
        for group in self.world.groups:
            module_ids = self.modules_by_copy[copy][group.name]
            for column, (agent, module_id) in enumerate(zip(group.agents, module_ids, strict=True)):
                earned = float(self._returns[group.name][copy, column])
                module_returns[module_id] += earned
                modules[agent] = module_id
                if group.counted:
                    returns[agent] = earned
        if self.policies.assignment.replaced[copy]:
            modules = {}
        length = int(self.episode_step[copy])
        return EpisodeRecord(self.episode_ids[copy], copy, length, returns, module_returns, modules, metrics, seconds)
