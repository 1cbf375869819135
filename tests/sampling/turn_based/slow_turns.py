"""The slow and obvious way to collect experience where agents take turns, die or join: Python lists per agent.

What `marl_tune.sampling.turn_based.rollout` makes of arrays is held against it, piece by piece and bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.agent_group import AgentGroup, Observations
from marl_tune.envs.trees import tree_map
from marl_tune.envs.world import STAYS, TERMINATED
from marl_tune.sampling.episode_pieces import Segment, make_piece
from marl_tune.sampling.policies import Arrays, Decision, Policies
from marl_tune.sampling.recurrent_states import SEQUENCE_STARTS, SequenceStarts
from marl_tune.sampling.rollout import Rollout

State = dict[str, np.ndarray]  # name -> recurrent state of one agent; {} for a module without a memory


@dataclass
class Track:
    """The decisions of one agent in one episode that have not been handed over, oldest first."""

    agent: str
    module_id: str
    max_seq_len: int  # steps of a training sequence of the module
    t_started: int = 0  # decisions of the episode that were handed over
    observations: list[Arrays] = field(default_factory=list)  # (...) before each decision
    columns: list[dict[str, Any]] = field(default_factory=list)  # RLlib's `Columns` -> (...) of each decision
    rewards: list[float] = field(default_factory=list)  # earned between it and the next
    states: list[State] = field(default_factory=list)  # at the start of each training sequence
    last_state: State = field(default_factory=dict)  # before the last decision

    def decide(self, observation: Arrays, columns: dict[str, Any], state: State) -> None:
        """Adds a decision, made in the given state."""
        if len(self.observations) % self.max_seq_len == 0:
            self.states.append(state)
        self.observations.append(observation)
        self.columns.append(columns)
        self.rewards.append(0.0)
        self.last_state = state

    def finish(self, episode: str, seen: Arrays, state: State, how: int = STAYS) -> list[SingleAgentEpisode]:
        """Hands over all decisions: what was seen after the last one, in which state, and how the agent ended."""
        return self._hand_over(len(self.observations), episode, seen, state, how)

    def finish_all_but_last(self, episode: str) -> list[SingleAgentEpisode]:
        """Hands over the decisions whose outcome is known."""
        if not self.observations:
            return []
        return self._hand_over(len(self.observations) - 1, episode, self.observations[-1], self.last_state, STAYS)

    def _hand_over(self, steps: int, episode: str, seen: Arrays, state: State, how: int) -> list[SingleAgentEpisode]:
        """The first `steps` decisions as a piece, in a list that is empty where there are none; the others stay."""
        if steps == 0:
            return []
        segment = Segment(0, 0, steps, self.t_started, episode, {}, how == TERMINATED, how not in (STAYS, TERMINATED))
        observations = tree_map(lambda *rows: np.stack(rows), *self.observations[:steps], seen)
        columns = {name: np.stack([each[name] for each in self.columns[:steps]]) for name in self.columns[0]}
        rewards = np.array(self.rewards[:steps], np.float32)
        piece = make_piece(segment, self.agent, self.module_id, observations, columns, rewards)
        if state:
            starts = [*self.states[: -(-steps // self.max_seq_len)], *([] if steps % self.max_seq_len else [state])]
            states = {name: np.stack([s[name] for s in starts]) for name in state}
            piece.custom_data[SEQUENCE_STARTS] = SequenceStarts(states, self.max_seq_len)
        for part in (self.observations, self.columns, self.rewards):
            del part[:steps]
        self.states = [self.last_state] if self.observations else []
        self.t_started += steps
        return [piece]


class Tracks:
    """The tracks of all agents of all copies.

    Args:
        groups: the world's agent groups.
        policies: who acts.
        max_seq_len: module id -> steps of a training sequence, for stateful modules.
    """

    def __init__(self, groups: tuple[AgentGroup, ...], policies: Policies, max_seq_len: Mapping[str, int]):
        self.groups, self.policies, self.max_seq_len = groups, policies, max_seq_len
        self.tracks: list[dict[tuple[str, int], Track]] = [{} for _ in range(policies.num_envs)]  # by group and column

    def begin(self, copy: int, modules: Mapping[str, tuple[str, ...]]) -> None:
        """A new episode in a copy, in which these modules act: group -> module id of each of its agents."""
        self.tracks[copy] = {
            (group.name, column): Track(agent, module_id, self.max_seq_len.get(module_id, 1))
            for group in self.groups
            for column, (agent, module_id) in enumerate(zip(group.agents, modules[group.name], strict=True))
        }

    def states(self, acting: Mapping[str, np.ndarray]) -> dict[tuple[str, int, int], State]:
        """The present states of those that act, by group, copy and column; none for modules without a memory."""
        if not self.policies.states:
            return {}
        return {
            (name, copy, column): self._state(copy, name, column)
            for name, acts in acting.items()
            for copy, column in np.argwhere(acts).tolist()
        }

    def _state(self, copy: int, name: str, column: int) -> State:
        place = np.array([copy * self.policies.assignment.module_numbers[name].shape[1] + column])
        for _, _, states in self.policies.states_of_agents(name, place):
            return {key: rows[0] for key, rows in states.items()}
        return {}

    def decide(
        self,
        acting: Mapping[str, np.ndarray],
        observations: Observations,
        decisions: Mapping[str, Decision],
        states: Mapping[tuple[str, int, int], State],
    ) -> None:
        """Adds what those that act have decided, each in the state that `states` returned before."""
        for name, acts in acting.items():
            seen, columns = observations[name], decisions[name].items()
            for copy, column in np.argwhere(acts).tolist():
                observation = _row(seen, copy, column)
                chosen = {key: values[copy, column] for key, values in columns}
                self.tracks[copy][name, column].decide(observation, chosen, states.get((name, copy, column), {}))

    def pay(self, rewards: Mapping[str, np.ndarray]) -> None:
        """Adds what agents earned to their last decisions; an agent that has made none earns for nothing."""
        for name, earned in rewards.items():
            for copy, column in np.argwhere(earned).tolist():
                track = self.tracks[copy][name, column]
                if track.rewards:
                    track.rewards[-1] += float(earned[copy, column])

    def leave(
        self, left: Mapping[str, np.ndarray], observations: Observations, episodes: list[str]
    ) -> list[SingleAgentEpisode]:
        """The pieces of agents that have ended; `episodes` are the ids of the copies' present ones."""
        pieces = []
        for name, how in left.items():
            for copy, column in np.argwhere(how != STAYS).tolist():
                last = _row(observations[name], copy, column)
                track, state = self.tracks[copy][name, column], self._state(copy, name, column)
                pieces += track.finish(episodes[copy], last, state, int(how[copy, column]))
        return pieces

    def cut(
        self, acting: Mapping[str, np.ndarray], observations: Observations, episodes: list[str]
    ) -> list[SingleAgentEpisode]:
        """The pieces of a fragment that ends here: of those that act next all decisions, of others all but the last."""
        pieces = []
        for copy, tracks in enumerate(self.tracks):
            for (name, column), track in tracks.items():
                if acting[name][copy, column]:
                    seen = _row(observations[name], copy, column)
                    pieces += track.finish(episodes[copy], seen, self._state(copy, name, column))
                else:
                    pieces += track.finish_all_but_last(episodes[copy])
        return pieces


def _row(observations: Arrays, copy: int, column: int) -> Arrays:
    """What one agent of a group sees, (B, N, ...) -> (...)."""
    return tree_map(lambda array: array[copy, column], observations)


class SlowTurnRollout(Rollout):
    """What `TurnRollout` must equal."""

    def __init__(self, world, policies, max_seq_len, seed=None):
        super().__init__(world, policies, max_seq_len, seed)
        self.tracks = Tracks(world.groups, policies, max_seq_len)
        for b in range(world.num_envs):
            self.tracks.begin(b, self.modules_by_copy[b])

    def sample(self, num_steps: int, explore: bool = True) -> list[SingleAgentEpisode]:
        """See `Rollout.sample`; returns one piece per agent and segment in which it has acted."""
        pieces: list[SingleAgentEpisode] = []
        for _ in range(num_steps):
            acting = self.world.acting
            assert acting is not None
            states = self.tracks.states(acting)
            decisions, actions = self.policies.act(self.observations, explore, acting)
            self.tracks.decide(acting, self.observations, decisions, states)
            step = self.world.step(actions)
            assert step.left is not None
            self.observations = step.observations
            self.count_step(step)
            self.tracks.pay(step.rewards)
            pieces += self.tracks.leave(step.left, self.observations, self.episode_ids)
            done = np.flatnonzero(step.terminated | step.truncated)
            if len(done):
                self.begin_episodes(done)
                for b in done:
                    self.tracks.begin(int(b), self.modules_by_copy[b])
        assert self.world.acting is not None
        return pieces + self.tracks.cut(self.world.acting, self.observations, self.episode_ids)

    def get_state(self) -> dict[str, Any]:
        """See `Rollout.get_state`; decisions whose outcome is open belong to it."""
        return super().get_state() | {"tracks": deepcopy(self.tracks.tracks), "episodes": list(self.episode_ids)}

    def set_state(self, state: dict[str, Any]) -> None:
        """See `Rollout.set_state`."""
        super().set_state(state)
        self.tracks.tracks, self.episode_ids = deepcopy(state["tracks"]), list(state["episodes"])
