"""Cuts the train batches of several modules into minibatches: index sets over their tensors, without a copied whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from ray.rllib.core.columns import Columns

from marl_tune.envs.trees import tree_map

Batch = Mapping[str, Any]  # column -> tensor, or dict of tensors, with rows (R, ...), sequences or teams (S, T, ...)


def minibatches(
    batches: Mapping[str, Batch], num_epochs: int, minibatch_size: int | None, *, shuffle: bool, num_total: int = 0
) -> Iterator[tuple[dict[str, Batch], set[str]]]:
    """Yields minibatches of every module's batch, epoch by epoch, and which modules' last one it is.

    Args:
        batches: module id -> columns; rows (R, ...) or, with a loss mask, sequences or teams (S, T, ...), or states of
            a critic of A agents (R, A), which stay whole.
        num_epochs: passes over the batch.
        minibatch_size: agent-steps of a module in one minibatch; None takes the batch whole. A remainder is spread
            over the minibatches, so that all of an epoch's are about as large and none is tiny.
        shuffle: a new order each epoch.
        num_total: stop after this many and go round until then (several learners must step equally often); 0 means
            one round per epoch.
    """
    if not batches:
        return
    parts = {m: max(1, round(int(steps_of(b)) / minibatch_size)) if minibatch_size else 1 for m, b in batches.items()}
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


def steps_of(batch: Batch) -> int | torch.Tensor:
    """Agent-steps of a batch, padding not counted: an int, or an integer scalar on the batch's device."""
    mask = batch.get(Columns.LOSS_MASK)
    return len(batch[Columns.ACTIONS]) if mask is None else mask.sum()


def _rows(batch: Batch) -> torch.Tensor:
    """A column that every batch of its kind has: a critic alone does not act."""
    return batch[Columns.ACTIONS if Columns.ACTIONS in batch else Columns.LOSS_MASK]


def _take(batch: Batch, index: torch.Tensor) -> Batch:
    return {k: tree_map(lambda a: a.index_select(0, index), v) for k, v in batch.items()}


def _cut(batch: Batch, parts: int, shuffle: bool) -> list[torch.Tensor]:
    """The rows of one epoch as `parts` index sets."""
    rows = _rows(batch)
    # The CPU's generator, whatever the device: a seed gives the same order everywhere.
    order = torch.randperm(len(rows)) if shuffle else torch.arange(len(rows))
    return list(torch.tensor_split(order.to(rows.device), parts))
