"""A fragment of experience: arrays that are filled step by step, and cut into episode pieces at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.agent_group import AgentGroup, Observations
from marl_tune.envs.trees import Array, empty, joined, put, tree_map
from marl_tune.sampling.episode_pieces import Segment, make_piece
from marl_tune.sampling.global_states import STATE_ROWS, StateRows
from marl_tune.sampling.policies import Arrays, Decision
from marl_tune.sampling.recurrent_states import SEQUENCE_STARTS, NamedStates, SequenceStarts


class Fragment:
    """T steps of B copies: one array (B, N, T, ...) for each group and column.

    Time is the last of the three axes, so that the steps of one agent lie side by side in memory.

    >>> from marl_tune.envs import default_config, make_world
    >>> world = make_world(default_config("ant_colony", n_agents=2), num_envs=3)
    >>> fragment = Fragment(world.groups, num_steps=5, num_envs=3, max_seq_len={})
    >>> fragment.write_observations(0, world.reset([1, 2, 3]))
    >>> fragment.observations["ants"].shape[:3], fragment.rewards["ants"].shape
    ((3, 2, 6), (3, 2, 5))

    Args:
        groups: the environment's agent groups.
        num_steps: T.
        num_envs: B.
        max_seq_len: stateful module -> steps of a training sequence.
    """

    def __init__(self, groups: Sequence[AgentGroup], num_steps: int, num_envs: int, max_seq_len: Mapping[str, int]):
        self.groups, self.num_steps, self.num_envs, self.max_seq_len = groups, num_steps, num_envs, max_seq_len
        self.observations: dict[str, Arrays] = {}  # group -> (B, N, T + 1, ...)
        self.rewards = {g.name: np.empty((num_envs, len(g.agents), num_steps), np.float32) for g in groups}
        self.columns: dict[str, Decision] = {g.name: {} for g in groups}  # group -> column -> (B, N, T, ...)
        self.global_states: Array | None = None  # (B, T + 1, ...) if they are recorded

    def write_step(self, t: int, decisions: Mapping[str, Decision], rewards: Mapping[str, np.ndarray]) -> None:
        """Writes the decisions (B, N, ...) and rewards (B, N) of step t of each group."""
        for group in self.groups:
            self.rewards[group.name][:, :, t] = rewards[group.name]
            columns = self.columns[group.name]
            for name, value in decisions[group.name].items():
                if name not in columns:
                    columns[name] = np.empty((*value.shape[:2], self.num_steps, *value.shape[2:]), value.dtype)
                columns[name][:, :, t] = value

    def write_observations(self, t: int, observations: Observations) -> None:
        """Writes the observations before step t; t = T for those after the last step."""
        for group in self.groups:
            seen = observations[group.name]
            if group.name not in self.observations:
                self.observations[group.name] = tree_map(self._empty_like, seen)
            tree_map(lambda store, a: _write(store, t, a), self.observations[group.name], seen)

    def write_global_states(self, t: int, states: Array) -> None:
        """Writes the global states (B, ...) before step t; t = T for those after the last step."""
        if self.global_states is None:
            self.global_states = empty((len(states), self.num_steps + 1, *states.shape[1:]), states)
        put(self.global_states, (slice(None), t), states)

    def _empty_like(self, array: Array) -> Array:
        return empty((*array.shape[:2], self.num_steps + 1, *array.shape[2:]), array)

    def pieces(self, segments: Sequence[Segment]) -> list[SingleAgentEpisode]:
        """Returns one piece for each segment and agent."""
        return [piece for segment in segments for piece in self._pieces_of(segment)]

    def _pieces_of(self, segment: Segment) -> list[SingleAgentEpisode]:
        pieces, agents_so_far = [], dict.fromkeys(segment.states, 0)  # stateful module -> agents
        rows = self._state_rows(segment)
        for group in self.groups:
            for column, (agent, module_id) in enumerate(zip(group.agents, segment.modules[group.name], strict=True)):
                seen, steps = self._observations_of(segment, group.name, column), slice(segment.start, segment.stop)
                columns = {n: array[segment.copy, column, steps] for n, array in self.columns[group.name].items()}
                rewards = self.rewards[group.name][segment.copy, column, steps]
                piece = make_piece(segment, agent, module_id, seen, columns, rewards)
                if module_id in segment.states:
                    states = _states_of_agent(segment.states[module_id], agents_so_far[module_id])
                    piece.custom_data[SEQUENCE_STARTS] = SequenceStarts(states, self.max_seq_len[module_id])
                    agents_so_far[module_id] += 1
                if rows is not None:
                    piece.custom_data[STATE_ROWS] = rows
                pieces.append(piece)
        return pieces

    def _state_rows(self, segment: Segment) -> StateRows | None:
        """The global states of a segment, one object for all its pieces."""
        if self.global_states is None:
            return None
        steps = segment.stop - segment.start
        states = self.global_states[segment.copy, segment.start : segment.stop + 1]
        if segment.last_global_state is not None:
            states = joined(states[:steps], segment.last_global_state[None])
        return StateRows(states, np.arange(steps + 1))

    def _observations_of(self, segment: Segment, group: str, column: int) -> Arrays:
        """The observations (T + 1, ...) of one agent in a segment of T steps."""
        b, steps = segment.copy, slice(segment.start, segment.stop)
        if group in segment.last:
            return tree_map(
                lambda store, last: joined(store[b, column, steps], last[column, None]),
                self.observations[group],
                segment.last[group],
            )
        with_next = slice(segment.start, segment.stop + 1)
        return tree_map(lambda store: store[b, column, with_next], self.observations[group])


def _write(store: Array, t: int, values: Array) -> None:
    put(store, (slice(None), slice(None), t), values)


def _states_of_agent(states: list[NamedStates], number: int) -> NamedStates:
    """The states of the module's agent of this number at all sequence starts: name -> (starts, ...)."""
    return {name: np.stack([state[name][number] for state in states]) for name in states[0]}
