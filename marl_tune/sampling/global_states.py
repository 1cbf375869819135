"""The global state of the environment, stored with episode pieces: once per step of a copy, not once per agent.

A segment of a copy has one array of states. All pieces of the segment refer to this one array, so a list of pieces (a
pickled one, too) holds it once. Each piece says which rows of the array belong to its own observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.trees import Array, on_host

STATE_ROWS = "state_rows"  # key of SingleAgentEpisode.custom_data: a StateRows


@dataclass
class StateRows:
    """The global states at the observations of one piece.

    >>> rows = StateRows(array=np.array([[0.0], [1.0], [2.0], [3.0]]), index=np.arange(4))  # of a piece of 3 steps
    >>> last_step = rows.of_steps(2, 3)
    >>> last_step.array[last_step.index].tolist()
    [[2.0], [3.0]]
    """

    array: Array  # (rows, ...) states of a copy, shared with the other pieces of the segment
    index: np.ndarray  # (T + 1,) for each observation of the piece the row of its state

    def of_steps(self, first: int, stop: int) -> StateRows:
        """Returns those of the steps [first, stop) of the piece."""
        return StateRows(self.array, self.index[first : stop + 1])


def state_rows(piece: SingleAgentEpisode) -> StateRows:
    """Returns the global states of a piece.

    Raises:
        ValueError: if the piece was sampled without them.
    """
    if STATE_ROWS in piece.custom_data:
        return piece.custom_data[STATE_ROWS]
    raise ValueError("a central critic learns from rollouts that record the state: set cluster.rollout=batched")


def bring_states_to_host(pieces: Sequence[SingleAgentEpisode]) -> None:
    """Replaces states on a GPU by NumPy arrays, in place. Pieces that shared an array share its copy."""
    on_cpu: dict[int, np.ndarray] = {}  # id of an array -> its copy
    for piece in pieces:
        rows = piece.custom_data.get(STATE_ROWS)
        if rows is not None and id(rows.array) not in on_cpu:
            host = on_host(rows.array)
            on_cpu[id(rows.array)] = on_cpu[id(host)] = host
        if rows is not None:
            rows.array = on_cpu[id(rows.array)]
