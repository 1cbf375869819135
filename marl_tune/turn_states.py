"""The states of a world where agents take turns, die or join: each once a step of a copy, found by decision.

An agent's steps are its own decisions there, and a decision may wait for its outcome until a later fragment. So rows
are counted by episode, and every agent has a list of those at which it decided and that have not been handed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from envs.trees import Array
from envs.world import AgentGroup
from marl_tune.state_rows import STATE_ROWS, StateRows


@dataclass
class _Log:
    """One episode of one copy, from the oldest decision on that waits for its outcome."""

    rows: list[Array] = field(default_factory=list)  # (...) states, oldest first
    decided: dict[str, list[int]] = field(default_factory=dict)  # agent -> rows at which it decided, not handed over
    claims: list[tuple[SingleAgentEpisode, list[int]]] = field(default_factory=list)
    # pieces of this fragment, with the rows at their observations
    over: bool = False

    def forget(self) -> None:
        """Drops the rows that nobody waits for."""
        first = min((rows[0] for rows in self.decided.values() if rows), default=len(self.rows))
        self.rows, self.claims = self.rows[first:], []
        self.decided = {agent: [row - first for row in rows] for agent, rows in self.decided.items()}


class TurnStates:
    """What pieces are given as their states (`state_rows`).

    Args:
        groups: the world's agent groups.
    """

    def __init__(self, groups: Sequence[AgentGroup]):
        self._groups = groups
        self.logs: dict[str, _Log] = {}  # id of an episode -> its states

    def see(self, episodes: Sequence[str], states: Array, acting: Mapping[str, np.ndarray]) -> None:
        """Notes the states (B, ...) in which those that act decide; `episodes` are the ids of the copies' present
        ones."""
        for episode, state in zip(episodes, states, strict=True):
            self.logs.setdefault(episode, _Log()).rows.append(state)
        for group in self._groups:
            for copy, column in np.argwhere(acting[group.name]).tolist():
                log = self.logs[episodes[copy]]
                log.decided.setdefault(group.agents[column], []).append(len(log.rows) - 1)

    def claim(self, pieces: Iterable[SingleAgentEpisode]) -> None:
        """Notes which rows belong to new pieces: those of their decisions, and then that of the agent's next decision
        or, where it has made none, of the state that is noted next."""
        for piece in pieces:
            log, steps = self.logs[piece.multi_agent_episode_id], len(piece)
            waiting = log.decided[piece.agent_id]
            after = waiting[steps] if len(waiting) > steps else len(log.rows)
            log.claims.append((piece, [*waiting[:steps], after]))
            del waiting[:steps]

    def end(self, episodes: Iterable[str], states: Iterable[Array]) -> None:
        """Notes the last states of episodes that have ended."""
        for episode, state in zip(episodes, states, strict=True):
            self.logs[episode].rows.append(state)
            self.logs[episode].over = True

    def hand_over(self, episodes: Sequence[str], states: Array) -> None:
        """Gives the claimed rows to their pieces at the end of a fragment, where the copies are in these states."""
        for episode, state in zip(episodes, states, strict=True):
            self.logs.setdefault(episode, _Log()).rows.append(state)
        for log in self.logs.values():
            if log.claims:
                array = _stacked(log.rows)
                for piece, rows in log.claims:
                    piece.custom_data[STATE_ROWS] = StateRows(array, np.array(rows))
        self.logs = {episode: log for episode, log in self.logs.items() if not log.over}
        for log in self.logs.values():
            log.rows.pop()  # it is noted again when the next fragment begins
            log.forget()


def _stacked(rows: Sequence[Array]) -> Array:
    if isinstance(rows[0], np.ndarray):
        return np.stack(rows)
    array = rows[0].new_empty((len(rows), *rows[0].shape))  # torch's, of a world on a GPU
    for number, row in enumerate(rows):
        array[number] = row
    return array
