"""A fragment of experience: arrays that are filled step by step, and cut into RLlib's episodes at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.agent_group import AgentGroup, Observations
from marl_tune.envs.trees import Array, empty, joined, tree_map
from marl_tune.sampling.episode_pieces import Segment, lean_episode
from marl_tune.sampling.global_states import STATE_ROWS, StateRows
from marl_tune.sampling.recurrent_states import SEQUENCE_STARTS, SequenceStarts

if TYPE_CHECKING:  # marl_tune.sampling.policies reads fragments' pieces
    from marl_tune.sampling.policies import Arrays, Decision

    # (...): the state of the world after the last step, where the episode ended with it and states are recorded


class Fragment:
    """T steps of B copies: for each group and column an array (B, N, T, ...), time last so that an agent's steps lie
    side by side.

    Args:
        groups: the world's agent groups.
        num_steps: T.
        num_envs: B.
        max_seq_len: stateful module -> steps of a training sequence.
    """

    def __init__(self, groups: Sequence[AgentGroup], num_steps: int, num_envs: int, max_seq_len: Mapping[str, int]):
        self.groups, self.num_steps, self.num_envs, self.max_seq_len = groups, num_steps, num_envs, max_seq_len
        self.observations: dict[str, Arrays] = {}  # (B, N, T + 1, ...)
        self.rewards = {g.name: np.empty((num_envs, len(g.agents), num_steps), np.float32) for g in groups}
        self.columns: dict[str, dict[str, np.ndarray]] = {g.name: {} for g in groups}
        self.world: Array | None = None  # (B, T + 1, ...) states of the world, where they are recorded

    def put(self, t: int, decisions: dict[str, Decision], rewards: dict[str, np.ndarray]) -> None:
        """Writes what was done in step t, and what it was worth."""
        for group in self.groups:
            self.rewards[group.name][:, :, t] = rewards[group.name]
            columns = self.columns[group.name]
            for name, value in decisions[group.name].items():
                if name not in columns:
                    columns[name] = np.empty((*value.shape[:2], self.num_steps, *value.shape[2:]), value.dtype)
                columns[name][:, :, t] = value

    def see(self, t: int, observations: Observations) -> None:
        """Writes what is seen before step t; t = T for what is seen after the last."""
        for group in self.groups:
            seen = observations[group.name]
            if group.name not in self.observations:
                self.observations[group.name] = tree_map(self._empty_like, seen)
            tree_map(lambda store, a: _write(store, t, a), self.observations[group.name], seen)

    def see_world(self, t: int, states: Array) -> None:
        """Writes the copies' states (B, ...) before step t; t = T for those after the last."""
        if self.world is None:
            self.world = empty((len(states), self.num_steps + 1, *states.shape[1:]), states)
        self.world[:, t] = states

    def _empty_like(self, array: Array) -> Array:
        return empty((*array.shape[:2], self.num_steps + 1, *array.shape[2:]), array)

    def pieces(self, segments: Sequence[Segment]) -> list[SingleAgentEpisode]:
        """One numpy episode per agent and segment."""
        return [piece for segment in segments for piece in self._pieces(segment)]

    def _pieces(self, segment: Segment) -> list[SingleAgentEpisode]:
        pieces, place = [], dict.fromkeys(segment.states, 0)
        rows = self._state_rows(segment)
        for group in self.groups:
            for column, (agent, module_id) in enumerate(zip(group.agents, segment.modules[group.name], strict=True)):
                piece = self._piece(segment, group.name, column)
                piece.agent_id, piece.module_id = agent, module_id
                piece.id_ = f"{segment.episode}_{agent}"
                if module_id in segment.states:
                    states = _stacked(segment.states[module_id], place[module_id])
                    piece.custom_data[SEQUENCE_STARTS] = SequenceStarts(states, self.max_seq_len[module_id])
                    place[module_id] += 1
                if rows is not None:
                    piece.custom_data[STATE_ROWS] = rows
                pieces.append(piece)
        return pieces

    def _state_rows(self, segment: Segment) -> StateRows | None:
        """The states of a segment, one object for all its pieces."""
        if self.world is None:
            return None
        steps = segment.stop - segment.start
        states = self.world[segment.copy, segment.start : segment.stop + 1]
        if segment.last_world is not None:
            states = joined(states[:steps], segment.last_world[None])
        return StateRows(states, np.arange(steps + 1))

    def _piece(self, segment: Segment, group: str, column: int) -> SingleAgentEpisode:
        b, steps = segment.copy, slice(segment.start, segment.stop)
        if group in segment.last:
            seen = tree_map(
                lambda store, last: joined(store[b, column, steps], last[column, None]),
                self.observations[group],
                segment.last[group],
            )
        else:
            with_next = slice(segment.start, segment.stop + 1)
            seen = tree_map(lambda store: store[b, column, with_next], self.observations[group])
        columns = {name: array[b, column, steps] for name, array in self.columns[group].items()}
        return lean_episode(segment, seen, columns, self.rewards[group][b, column, steps])


def _write(store: Array, t: int, values: Array) -> None:
    store[:, :, t] = values


def _stacked(states: list[dict[str, np.ndarray]], place: int) -> dict[str, np.ndarray]:
    return {name: np.stack([state[name][place] for state in states]) for name in states[0]}
