"""What a step was worth."""

from __future__ import annotations

import numpy as np


def generalized_advantages(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    lengths: np.ndarray,
    gamma: float,
    lambda_: float,
) -> np.ndarray:
    """GAE (Schulman et al. 2016, https://arxiv.org/abs/1506.02438, eq. 16) over many pieces at once.

    Args:
        rewards, values: (rows,) of all pieces, one piece after the other.
        next_values: (rows,) V(s_{t+1}); 0 after a terminal step, the bootstrap value after the last step of a piece
            that was cut.
        lengths: (pieces,) steps of each piece; they sum to rows.

    Returns:
        (rows,) advantages.
    """
    deltas = rewards + gamma * next_values - values
    longest, pieces = int(lengths.max()), len(lengths)
    # Right-aligned in a (longest, pieces) table: the recursion starts at the last step of every piece at once.
    piece = np.repeat(np.arange(pieces), lengths)
    row = longest - (np.cumsum(lengths)[piece] - np.arange(len(deltas)))
    table = np.zeros((longest, pieces), deltas.dtype)
    table[row, piece] = deltas
    for t in range(longest - 2, -1, -1):
        table[t] += gamma * lambda_ * table[t + 1]  # A_t = delta_t + gamma lambda A_{t+1}
    return table[row, piece]
