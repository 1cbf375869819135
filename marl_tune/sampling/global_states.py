"""The state of the world beside what an agent saw: stored once a step of a copy, not once an agent.

A segment of a copy has one array of states. All pieces that are cut from it hold that same array, so that a list of
them, also a pickled one, holds it once; and each says which of its rows belong to its own observations.
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
    """The states at the observations of one piece."""

    array: Array  # (rows, ...) states of a copy, shared with the other pieces of the segment
    index: np.ndarray  # (T + 1,) the row that was the present state at each observation of the piece

    def of_steps(self, first: int, stop: int) -> StateRows:
        """Those of a part of the piece, by its steps."""
        return StateRows(self.array, self.index[first : stop + 1])


def state_rows(piece: SingleAgentEpisode) -> StateRows:
    """The states of a piece.

    Raises:
        ValueError: if it was sampled without them.
    """
    if STATE_ROWS in piece.custom_data:
        return piece.custom_data[STATE_ROWS]
    raise ValueError("a central critic learns from rollouts that record the state: set cluster.rollout=batched")


def bring_states_to_host(pieces: Sequence[SingleAgentEpisode]) -> None:
    """Turns states on a GPU into arrays of NumPy's, each once; in place."""
    there: dict[int, np.ndarray] = {}
    for piece in pieces:
        rows = piece.custom_data.get(STATE_ROWS)
        if rows is not None and id(rows.array) not in there:
            host = on_host(rows.array)
            there[id(rows.array)] = there[id(host)] = host
        if rows is not None:
            rows.array = there[id(rows.array)]
