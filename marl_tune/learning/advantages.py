"""Estimates the advantage of each step."""

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
    """Computes generalized advantage estimates (GAE, Schulman et al. 2016, https://arxiv.org/abs/1506.02438, eq. 16) of
    many pieces at once.

    >>> rewards, zeros = np.array([1.0, 1.0, 5.0]), np.zeros(3)
    >>> lengths = np.array([2, 1])  # a piece of two steps, then a piece of one
    >>> generalized_advantages(rewards, zeros, zeros, lengths, gamma=0.5, lambda_=1.0).tolist()
    [1.5, 1.0, 5.0]

    Args:
        rewards: (rows,) of all pieces, one piece after the other.
        values: (rows,) V(s_t).
        next_values: (rows,) V(s_{t+1}); 0 after a terminal step; the bootstrap value after the last step of a piece
            that was cut.
        lengths: (pieces,) steps of each piece; they sum to rows.
        gamma: discount in [0, 1].
        lambda_: in [0, 1].

    Returns:
        (rows,) advantages.
    """
    deltas = rewards + gamma * next_values - values
    longest, pieces = int(lengths.max()), len(lengths)
    # A (longest, pieces) table in which all pieces end in the last row: the recursion runs over all pieces at once.
    piece = np.repeat(np.arange(pieces), lengths)
    row = longest - (np.cumsum(lengths)[piece] - np.arange(len(deltas)))
    table = np.zeros((longest, pieces), deltas.dtype)
    table[row, piece] = deltas
    for t in range(longest - 2, -1, -1):
        table[t] += gamma * lambda_ * table[t + 1]  # A_t = delta_t + gamma lambda A_{t+1}
    return table[row, piece]
