"""Orders the rows of a module's batch by team, for modules that process all agents of a copy together."""

from __future__ import annotations

import numpy as np
import torch


class TeamOrder:
    """Turns the rows of an acting module into the teams of the copies, and back.

    >>> order = TeamOrder("shared", copies=np.array([0, 1, 0, 1]), team_size=2)
    >>> order.to_teams(torch.tensor([10, 20, 11, 21])).tolist()
    [[10, 11], [20, 21]]
    >>> order.to_rows(torch.tensor([[10, 11], [20, 21]])).tolist()
    [10, 20, 11, 21]

    Args:
        module_id: named in error messages.
        copies: (rows,) copy of each row.
        team_size: N, the agents of one copy.
        device: of the rows.

    Raises:
        ValueError: if the module does not act for N agents in every copy.
    """

    def __init__(self, module_id: str, copies: np.ndarray, team_size: int, device: torch.device | str = "cpu"):
        if not len(copies) or (np.bincount(copies) != team_size).any():
            raise ValueError(f"module {module_id} must act for the same {team_size} agents in every copy of the world")
        self.team_size = team_size
        order = np.argsort(copies, kind="stable")
        in_order = bool((order[1:] > order[:-1]).all())  # usual case: the module acts for one group
        self._to_teams = None if in_order else torch.from_numpy(order).to(device)
        self._to_rows = None if in_order else torch.from_numpy(np.argsort(order)).to(device)

    def to_teams(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, ...) -> (B, N, ...)"""
        return (rows if self._to_teams is None else rows[self._to_teams]).unflatten(0, (-1, self.team_size))

    def to_rows(self, teams: torch.Tensor) -> torch.Tensor:
        """(B, N, ...) -> (rows, ...)"""
        rows = teams.flatten(0, 1)
        return rows if self._to_rows is None else rows[self._to_rows]
