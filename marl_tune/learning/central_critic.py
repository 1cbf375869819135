"""Values of a central critic for a whole train batch, by one pass over its states, and the batch it learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.evaluation.postprocessing import Postprocessing

from marl_tune.envs.trees import Array, joined
from marl_tune.learning.minibatches import Batch
from marl_tune.modules.central_critic import CentralCritic
from marl_tune.sampling.global_states import state_rows

OLD_OUTPUTS = "old_outputs"  # column of the critic's batch: outputs of its head before the update


class CentralValues:
    """The values of all agents at all global states of a train batch.

    >>> import gymnasium as gym
    >>> from marl_tune.sampling.testing import small_fragment
    >>> _, pieces = small_fragment(with_state=True)
    >>> settings = {"hidden_dims": [8], "activation": "tanh", "agents": ["ant_0", "ant_1"]}
    >>> space = gym.spaces.Box(-1, 1, pieces[0].custom_data["state_rows"].array.shape[1:])
    >>> critic = CentralCritic(observation_space=space, action_space=None, model_config=settings)
    >>> CentralValues(critic, pieces, torch.from_numpy).values_for(pieces).shape  # 6 pieces of 5 steps
    (36,)

    Args:
        critic: the critic.
        pieces: all pieces of the batch, of all modules.
        to_tensor: brings an array to the critic's device.

    Raises:
        ValueError: if pieces carry no global states.
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

    def values_for(self, pieces: Sequence[SingleAgentEpisode]) -> np.ndarray:
        """Returns the values (steps + pieces,) of each piece's agent at all its observations, the last one included."""
        return self.values[self._places(pieces, [self._rows(piece) for piece in pieces])]

    def add_targets(self, pieces: Sequence[SingleAgentEpisode], targets: np.ndarray) -> None:
        """Stores the value targets (steps,) of the pieces' steps, one piece after the other."""
        places = self._places(pieces, [self._rows(piece)[:-1] for piece in pieces])
        self._targets[places] = targets
        self._acted[places] = True

    def _rows(self, piece: SingleAgentEpisode) -> np.ndarray:
        rows = state_rows(piece)
        return self._first[id(rows.array)] + rows.index

    def _places(
        self, pieces: Sequence[SingleAgentEpisode], rows: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns in the table of values, for the given rows of each piece."""
        columns = [self._column[piece.agent_id] for piece in pieces]
        return np.concatenate(rows), np.repeat(columns, [len(each) for each in rows])

    def critic_batch(self) -> Batch:
        """Returns the critic's own train batch, with a row for each state in which an agent acted.

        An agent that did not act in a state (dead, absent or waiting for its turn) has no target there. This is the
        death masking of Yu et al. 2022 (https://arxiv.org/abs/2103.01955, section 5.5), applied to the loss instead of
        the input.

        Returns:
            Columns: states (rows, ...); for each of A agents (rows, A) targets, present outputs of the head, and a mask
            of the agents that acted.
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
    """Settings of a central critic's loss, and its learning rate.

    >>> CriticSettings(lr=1e-3, normalise_values=True, huber_delta=10.0, clip_param=0.2).huber_delta
    10.0
    """

    lr: float
    normalise_values: bool  # learn targets of mean 0 and standard deviation 1, by running moments
    huber_delta: float | None  # above this error the loss is linear; None: squared everywhere
    clip_param: float | None  # PPO's clipping: limit of a value's change in one update; None: no limit


def normalise_targets(critic: CentralCritic, batch: Batch, distributed: bool) -> Batch:
    """Updates the critic's running moments by the targets, and returns the batch with the targets in the unit of the
    critic's outputs. To be called once per batch, before its epochs.

    Yu et al.'s code updates the moments in every minibatch instead. Old outputs stay as they are, because they are
    compared with new outputs.

    Args:
        critic: the critic; if its values are not normalised, the targets stay as they are.
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
