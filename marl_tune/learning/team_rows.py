"""The rows of agents that talk to each other, kept together by copy and step: (rows, ...) <-> (R, N, ...).

A module that is a `TeamAPI` takes its N agents of one copy in one step side by side. `TeamOrder` does that for those
who act now; `TeamRows` for pieces of experience, as `Sequences` does for modules with a memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.trees import tree_map
from marl_tune.modules.communication import TeamAPI
from marl_tune.sampling.episode_pieces import without_lookback

Batch = dict[str, Any]


class TeamRows:
    """Lays the pieces of one segment, of which there is one an agent, side by side.

    The `_seen` members are of the pieces with their last observation, whose value is the bootstrap.

    Args:
        module: it takes (R, N, ...).
        pieces: of the module's agents, in any order.
        device: of the batch.

    Raises:
        ValueError: if a team is not whole: its segments have not one piece an agent, of one length.
    """

    def __init__(self, module: TeamAPI, pieces: Sequence[SingleAgentEpisode], device: Any):
        teams = _teams(pieces, module.team_size)  # (segments, N) numbers of pieces
        lengths = np.array([len(piece) for piece in pieces])
        if (lengths[teams] != lengths[teams[:, :1]]).any():
            raise ValueError("agents that talk to each other must act in the same steps of an episode")
        self._rows = _table(teams, lengths).to(device)
        self._seen = _table(teams, lengths + 1).to(device)
        self._back = torch.argsort(self._seen.flatten())
        self._drawn, self._drawn_seen = {}, {}  # column -> (rows, width), and (rows + pieces, width)
        for name in module.drawn_columns:
            drawn = [without_lookback(piece.extra_model_outputs[name]) for piece in pieces]
            # What inference does, which is 0, for the last observation: nobody has acted on it.
            last = np.zeros((1, *drawn[0].shape[1:]), drawn[0].dtype)
            self._drawn[name] = torch.from_numpy(np.concatenate(drawn)).to(device)
            self._drawn_seen[name] = torch.from_numpy(np.concatenate([x for d in drawn for x in (d, last)])).to(device)

    def batch_seen(self, seen: Any) -> Batch:
        """Observations (rows + pieces, ...) -> what values are computed from, (R', N, ...)."""
        columns = {Columns.OBS: seen, **self._drawn_seen}
        return {name: tree_map(lambda a: a[self._seen], value) for name, value in columns.items()}

    def flat_seen(self, values: torch.Tensor) -> torch.Tensor:
        """(R', N) -> (rows + pieces,)"""
        return values.flatten()[self._back]

    def split(self, columns: Batch) -> Batch:
        """Columns of rows (rows, ...) -> of teams (R, N, ...), with what was drawn and a mask: all are there."""
        out = {name: tree_map(lambda a: a[self._rows], value) for name, value in (columns | self._drawn).items()}
        out[Columns.LOSS_MASK] = torch.ones(self._rows.shape, dtype=torch.bool, device=self._rows.device)
        return out


def _teams(pieces: Sequence[SingleAgentEpisode], team_size: int) -> np.ndarray:
    """(segments, N) numbers of the pieces of each segment, the part of an episode that lies in one fragment."""
    teams: dict[tuple[str, int], list[int]] = {}
    for number, piece in enumerate(pieces):
        teams.setdefault((piece.multi_agent_episode_id, piece.t_started), []).append(number)
    if sizes := sorted({len(members) for members in teams.values()} - {team_size}):
        raise ValueError(f"a team of {team_size} agents that talk to each other was torn: found {sizes} of them")
    return np.array(list(teams.values()))


def _table(teams: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
    """(R, N) place of each agent's step among the flat rows of pieces of these lengths."""
    first = np.cumsum(lengths) - lengths  # (pieces,) first row of each
    of_team = lengths[teams[:, 0]]
    team = np.repeat(np.arange(len(teams)), of_team)
    step = np.arange(len(team)) - np.repeat(np.cumsum(of_team) - of_team, of_team)
    return torch.from_numpy(first[teams[team]] + step[:, None])
