"""Arranges the rows of a train batch by team, for modules whose agents send messages: (rows, ...) <-> (R, N, ...).

A module that is a `TeamAPI` takes the N agents of one copy in one step together. `TeamOrder` arranges the agents that
act now. `TeamRows` arranges pieces of experience, as `Sequences` does for recurrent modules.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.trees import tree_map
from marl_tune.learning.minibatches import Batch
from marl_tune.modules.communication import TeamAPI
from marl_tune.sampling.episode_pieces import without_lookback
from marl_tune.sampling.policies import Arrays


class TeamRows:
    """Puts the pieces of the same segment, one for each agent of the team, side by side.

    There are two sets of rows: R of the steps, for the loss; and R' of the steps and the last observations, for the
    values. The value of the last observation is the bootstrap value.

    >>> from marl_tune.sampling.testing import small_fragment
    >>> policies, pieces = small_fragment("communication")
    >>> rewards = torch.from_numpy(np.concatenate([piece.rewards.data for piece in pieces]))
    >>> rows = TeamRows(policies.modules["ants"], pieces, "cpu")
    >>> rows.arrange({"rewards": rewards})["rewards"].shape  # 5 steps x 3 copies, 2 ants
    torch.Size([15, 2])

    Args:
        module: it takes (R, N, ...).
        pieces: of the module's agents, in any order.
        device: of the batch.

    Raises:
        ValueError: if a team is not complete: a segment must have one piece for each agent, all of the same length.
    """

    def __init__(self, module: TeamAPI, pieces: Sequence[SingleAgentEpisode], device: torch.device | str):
        teams = _teams(pieces, module.team_size)  # (segments, N) numbers of pieces
        lengths = np.array([len(piece) for piece in pieces])
        if (lengths[teams] != lengths[teams[:, :1]]).any():
            raise ValueError("agents that talk to each other must act in the same steps of an episode")
        self._rows = _table(teams, lengths).to(device)
        self._value_rows = _table(teams, lengths + 1).to(device)
        self._flat_order = torch.argsort(self._value_rows.flatten())
        self._drawn: dict[str, torch.Tensor] = {}  # column of random numbers -> (rows, width)
        self._drawn_for_values: dict[str, torch.Tensor] = {}  # column -> (rows + pieces, width)
        for name in module.drawn_columns:
            drawn = [without_lookback(piece.extra_model_outputs[name]) for piece in pieces]
            # 0 for the last observation, as in inference: nobody has acted on it, so nothing was drawn.
            last = np.zeros((1, *drawn[0].shape[1:]), drawn[0].dtype)
            self._drawn[name] = torch.from_numpy(np.concatenate(drawn)).to(device)
            with_last = np.concatenate([x for d in drawn for x in (d, last)])
            self._drawn_for_values[name] = torch.from_numpy(with_last).to(device)

    def value_batch(self, observations: Arrays) -> Batch:
        """Observations (rows + pieces, ...) -> the batch (R', N, ...) for which values are computed."""
        columns = {Columns.OBS: observations, **self._drawn_for_values}
        return {name: tree_map(lambda a: a[self._value_rows], value) for name, value in columns.items()}

    def flat_values(self, values: torch.Tensor) -> torch.Tensor:
        """(R', N) -> (rows + pieces,)"""
        return values.flatten()[self._flat_order]

    def arrange(self, columns: Batch) -> Batch:
        """Columns of rows (rows, ...) -> of teams (R, N, ...), with a full mask and the random numbers of sampling."""
        columns = {**columns, **self._drawn}
        out = {name: tree_map(lambda a: a[self._rows], value) for name, value in columns.items()}
        out[Columns.LOSS_MASK] = torch.ones(self._rows.shape, dtype=torch.bool, device=self._rows.device)
        return out


def _teams(pieces: Sequence[SingleAgentEpisode], team_size: int) -> np.ndarray:
    """(segments, N) numbers of the pieces of each segment."""
    teams: dict[tuple[str, int], list[int]] = {}
    for number, piece in enumerate(pieces):
        teams.setdefault((piece.multi_agent_episode_id, piece.t_started), []).append(number)
    if sizes := sorted({len(members) for members in teams.values()} - {team_size}):
        raise ValueError(f"a team of {team_size} agents that talk to each other was torn: found {sizes} of them")
    return np.array(list(teams.values()))


def _table(teams: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
    """(R, N) row of each agent's step, when pieces of these lengths stand one after the other."""
    first = np.cumsum(lengths) - lengths  # (pieces,) first row of each
    of_team = lengths[teams[:, 0]]
    team = np.repeat(np.arange(len(teams)), of_team)
    step = np.arange(len(team)) - np.repeat(np.cumsum(of_team) - of_team, of_team)
    return torch.from_numpy(first[teams[team]] + step[:, None])
