"""What a central critic says of a whole batch, by one pass over its states, and the batch that it learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.evaluation.postprocessing import Postprocessing

from marl_tune.envs.trees import Array, joined
from marl_tune.modules.central_critic import CentralCritic
from marl_tune.sampling.global_states import state_rows

OLD_OUTPUTS = "old_outputs"  # column of its batch: what its head put out before the update


class CentralValues:
    """The values of all agents at all states of a batch.

    Args:
        critic: the critic.
        pieces: all pieces of the batch, whoever acted.
        to_tensor: brings an array to the critic's device.

    Raises:
        ValueError: if pieces carry no states.
    """

    def __init__(
        self, critic: CentralCritic, pieces: Sequence[SingleAgentEpisode], to_tensor: Callable[[Array], torch.Tensor]
    ):
        self._to_tensor = to_tensor
        self._column = {agent: column for column, agent in enumerate(critic.agents)}
        self._first: dict[int, int] = {}  # id of an array of states -> its first row among all states
        arrays, rows = [], 0
        for array in (state_rows(piece).array for piece in pieces):
            if id(array) not in self._first:
                self._first[id(array)] = rows
                arrays.append(array)
                rows += len(array)
        self.states = to_tensor(joined(*arrays))  # (rows, ...) each state once
        with torch.no_grad():
            self.outputs = critic.outputs(self.states)  # (rows, A)
            self.values = critic.values_of(self.outputs).cpu().numpy()  # (rows, A)
        self._targets = np.zeros_like(self.values)
        self._acted = np.zeros(self.values.shape, np.bool_)

    def of(self, pieces: Sequence[SingleAgentEpisode]) -> np.ndarray:
        """(steps + pieces,) V of each piece's own agent at all its observations, the last ones included."""
        return self.values[self._places(pieces, [self._rows(piece) for piece in pieces])]

    def learn(self, pieces: Sequence[SingleAgentEpisode], targets: np.ndarray) -> None:
        """Notes the targets (steps,) of the pieces' steps, one piece after the other."""
        places = self._places(pieces, [self._rows(piece)[:-1] for piece in pieces])
        self._targets[places] = targets
        self._acted[places] = True

    def _rows(self, piece: SingleAgentEpisode) -> np.ndarray:
        rows = state_rows(piece)
        return self._first[id(rows.array)] + rows.index

    def _places(
        self, pieces: Sequence[SingleAgentEpisode], rows: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the table of values, for the given rows of each piece."""
        columns = [self._column[piece.agent_id] for piece in pieces]
        return np.concatenate(rows), np.repeat(columns, [len(each) for each in rows])

    def batch(self) -> dict[str, Any]:
        """Columns of the states in which anybody acted, (rows, ...): states, and per agent (rows, A) targets, what the
        head puts out now, and who acted.

        Who did not act there, being dead, absent or waiting for its turn, has no target: the death masks of Yu et al.
        2022 (https://arxiv.org/abs/2103.01955, section 5.5), as masks of the loss rather than of the input.
        """
        rows = np.flatnonzero(self._acted.any(axis=1))
        index = self._to_tensor(rows)
        return {
            Columns.OBS: self.states.index_select(0, index),
            Postprocessing.VALUE_TARGETS: self._to_tensor(self._targets[rows]),
            OLD_OUTPUTS: self.outputs.index_select(0, index),
            Columns.LOSS_MASK: self._to_tensor(self._acted[rows]),
        }


@dataclass(frozen=True)
class CriticSettings:
    """The numbers of a central critic's loss, and its step size."""

    lr: float
    normalise_values: bool  # learn targets of mean 0 and deviation 1, by running moments
    huber_delta: float | None  # error from which on the loss is linear; None: squared throughout
    clip_param: float | None  # how far a value may move from the old one before the loss holds it back; None: any way


def learnable(critic: CentralCritic, batch: Mapping[str, Any], distributed: bool) -> dict[str, Any]:
    """The critic's batch with targets as its head has to put them out; called once a batch, before its epochs.

    The targets are taken into the running moments first, as in Yu et al.'s code, which does so in every minibatch. Old
    outputs stay as they are: they are compared with new ones.

    Args:
        batch: `value_targets` and `loss_mask` (rows, A), and further columns.
        distributed: whether other learners have other parts of the batch.
    """
    targets, mask = batch[Postprocessing.VALUE_TARGETS], batch[Columns.LOSS_MASK]
    kept = torch.where(mask, targets, 0.0).double()
    sums = torch.stack([mask.sum().double(), kept.sum(), kept.square().sum()])
    if distributed:
        torch.distributed.all_reduce(sums)
    critic.moments.update(sums[1] / sums[0], sums[2] / sums[0])
    return {**batch, Postprocessing.VALUE_TARGETS: critic.outputs_for(targets)}
