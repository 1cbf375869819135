"""The order of a team's agents in the rows of a module that reads whole teams."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class TeamOrder:
    """The rows of a module that acts, as the teams of the copies.

    Args:
        module_id: for messages.
        copies: (rows,) copy of each row.
        team_size: N.
        device: of the rows.

    Raises:
        ValueError: if the module does not act for N agents in every copy.
    """

    def __init__(self, module_id: str, copies: np.ndarray, team_size: int, device: Any = "cpu"):
        if not len(copies) or (np.bincount(copies) != team_size).any():
            raise ValueError(f"module {module_id} must act for the same {team_size} agents in every copy of the world")
        self.size = team_size
        order = np.argsort(copies, kind="stable")
        in_order = bool((order[1:] > order[:-1]).all())  # as it is where the module serves one group
        self.to_teams = None if in_order else torch.from_numpy(order).to(device)
        self.to_rows = None if in_order else torch.from_numpy(np.argsort(order)).to(device)

    def teams(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, ...) -> (B, N, ...)"""
        return (rows if self.to_teams is None else rows[self.to_teams]).unflatten(0, (-1, self.size))

    def rows(self, teams: torch.Tensor) -> torch.Tensor:
        """(B, N, ...) -> (rows, ...)"""
        rows = teams.flatten(0, 1)
        return rows if self.to_rows is None else rows[self.to_rows]
