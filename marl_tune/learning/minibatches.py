"""Cuts the train batches of several modules into minibatches, without copying a whole batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from ray.rllib.core.columns import Columns

from marl_tune.envs.trees import tree_map

Batch = Mapping[str, Any]
# column (RLlib's `Columns`) -> tensor, or dict of tensors: rows (R, ...), sequences or teams (S, T, ...)


def minibatches(
    batches: Mapping[str, Batch], num_epochs: int, minibatch_size: int | None, *, shuffle: bool, num_total: int = 0
) -> Iterator[tuple[dict[str, Batch], set[str]]]:
    """Yields the minibatches of all modules, epoch by epoch.

    >>> batches = {"shared": {"actions": torch.arange(6)}}
    >>> [part["shared"]["actions"].tolist() for part, _ in minibatches(batches, 1, 3, shuffle=False)]
    [[0, 1, 2], [3, 4, 5]]

    Args:
        batches: module id -> batch. With a loss mask, its rows are sequences or teams (S, T, ...), or states of a
            critic of A agents (R, A). Rows stay whole.
        num_epochs: passes over the batch.
        minibatch_size: agent-steps of a module in one minibatch; None: the whole batch. A remainder is spread over the
            minibatches of the epoch, so that they have about equal sizes.
        shuffle: a new order in each epoch; ignored for one epoch.
        num_total: yield exactly so many minibatches, in several rounds if need be (several learners must take equally
            many steps); 0: one round per epoch.

    Yields:
        Module id -> minibatch, and the ids of the modules for which it is the last minibatch.
    """
    if not batches:
        return
    parts = {
        m: max(1, round(int(num_agent_steps(b)) / minibatch_size)) if minibatch_size else 1 for m, b in batches.items()
    }
    parts = {m: min(part, len(_rows(batches[m]))) for m, part in parts.items()}
    rounds = max(parts.values())
    total = num_total or num_epochs * rounds
    last = {m: total - 1 if num_total else (num_epochs - 1) * rounds + parts[m] - 1 for m in batches}
    for number in range(total):
        if number % rounds == 0:
            cuts = {m: _cut(b, parts[m], shuffle and num_epochs > 1) for m, b in batches.items()}
        turn, minibatch = number % rounds, {}
        for module_id, batch in batches.items():
            cut = cuts[module_id]
            if turn >= len(cut) and not num_total:
                continue  # this module's epoch is over
            minibatch[module_id] = _take(batch, cut[turn % len(cut)])
        yield minibatch, {m for m in minibatch if number == last[m]}


def num_agent_steps(batch: Batch) -> int | torch.Tensor:
    """Returns the agent-steps of a batch without padding: an int, or an integer scalar on the batch's device."""
    mask = batch.get(Columns.LOSS_MASK)
    return len(batch[Columns.ACTIONS]) if mask is None else mask.sum()


def _rows(batch: Batch) -> torch.Tensor:
    """A column that the batch certainly has. The batch of a central critic has no actions, but a mask."""
    return batch[Columns.ACTIONS if Columns.ACTIONS in batch else Columns.LOSS_MASK]


def _take(batch: Batch, index: torch.Tensor) -> Batch:
    return {k: tree_map(lambda a: a.index_select(0, index), v) for k, v in batch.items()}


def _cut(batch: Batch, parts: int, shuffle: bool) -> list[torch.Tensor]:
    """The rows of one epoch as `parts` index sets."""
    rows = _rows(batch)
    # The CPU's generator for all devices: a seed gives the same order everywhere.
    order = torch.randperm(len(rows)) if shuffle else torch.arange(len(rows))
    return list(torch.tensor_split(order.to(rows.device), parts))
