"""PPO's learner: RLlib's loss; our train batch, minibatches, gradient check, and settings that can change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.learner import LearnerConnectorPipeline
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import DEFAULT_OPTIMIZER
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import (
    ALL_MODULES,
    NUM_MODULE_STEPS_TRAINED,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
)
from ray.rllib.utils.schedules.scheduler import Scheduler

from marl_tune.policy import tree_map
from marl_tune.train_batch import EpisodesToTrainBatch
from modules.curiosity import IntrinsicRewardAPI

CURIOSITY_OPTIMIZER = "curiosity_optimizer"
OPTIMIZER = "optimizer"  # key of AlgorithmConfig.learner_config_dict: Adam's settings
MODULE_SETTINGS = (
    "module_settings"  # key of it: module id -> model config, whose live fields a running module takes over
)


class NonFiniteGradientError(FloatingPointError):
    """A gradient became NaN or infinite; the message names the module and the parameters."""


class MarlPPOLearner(PPOTorchLearner):
    """Differs from RLlib's PPO learner in what surrounds the loss.

    - `EpisodesToTrainBatch` replaces the learner connector pipeline.
    - Minibatches are index sets over the tensors of the batch, without copies of the whole; sequences stay whole.
    - One finite check a step over all gradients instead of two or three synchronisations a parameter.
    - `apply_settings` changes every setting that enters the loss and the optimizer; a loaded optimizer state brings
      moments, not settings: a PBT clone trains with its own lr, betas, eps and weight decay from its first update on
          (https://github.com/ray-project/ray/issues/62173).
    """

    def build(self) -> None:
        # add_default_connectors_to_learner_pipeline is False: PPOLearner.build() then leaves the pipeline empty.
        super().build()
        self._train_batch = EpisodesToTrainBatch(
            gamma=self.config.gamma,
            lambda_=self.config.lambda_,
            use_critic=self.config.use_critic,
            device=self._device,
        )
        self._learner_connector = LearnerConnectorPipeline(connectors=[self._train_batch])

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """One Adam for actor and critic, and one for curiosity.

        RLlib clips gradients by optimizer: a large gradient of the one must not shrink the steps of the other.
        """
        module = self._module[module_id].unwrapped()
        apart = module.curiosity_parameters() if isinstance(module, IntrinsicRewardAPI) else []
        own = {id(parameter) for parameter in apart}
        rest = [parameter for parameter in self.get_parameters(module) if id(parameter) not in own]
        for name, parameters in ((DEFAULT_OPTIMIZER, rest), (CURIOSITY_OPTIMIZER, apart)):
            if parameters:
                self.register_optimizer(
                    module_id=module_id,
                    optimizer_name=name,
                    optimizer=torch.optim.Adam(parameters, **self._adam_settings(config)),
                    params=parameters,
                    lr_or_lr_schedule=config.lr,
                )

    def _adam_settings(self, config: Any) -> dict[str, Any]:
        adam = config.learner_config_dict[OPTIMIZER]
        return {
            "lr": config.lr,
            "betas": tuple(adam["betas"]),
            "eps": adam["eps"],
            "weight_decay": adam["weight_decay"],
        }

    # -- settings that change while the learner lives

    def apply_settings(self, config: Any) -> None:
        """Makes `config`, of the same structure, the one that the next update reads, everywhere it is read."""
        self.config = config.copy(copy_frozen=False)
        self._train_batch.gamma, self._train_batch.lambda_ = config.gamma, config.lambda_
        self._train_batch.use_critic = config.use_critic
        # Both are filled from self.config at their first use.
        self.entropy_coeff_schedulers_per_module.clear()
        self.curr_kl_coeffs_per_module.clear()
        self._reapply_optimizer_settings()
        for module_id, module in self.module.items():
            module.unwrapped().apply_live_settings(config.learner_config_dict[MODULE_SETTINGS][module_id])

    def _reapply_optimizer_settings(self) -> None:
        for name, optimizer in self._named_optimizers.items():
            config = self.config.get_config_for_module(self._optimizer_name_to_module[name])
            for group in optimizer.param_groups:
                group.update(self._adam_settings(config))
            # RLlib writes the schedule's value back into the optimizer after each update.
            self._optimizer_lr_schedules[optimizer] = Scheduler(
                fixed_value_or_schedule=config.lr, framework=self.framework, device=self._device
            )

    def _set_optimizer_state(self, state: dict[str, Any]) -> None:
        super()._set_optimizer_state(state)
        self._reapply_optimizer_settings()

    # -- one update --------------------------------------------------------------------------------------------------

    def _make_batch_if_necessary(self, training_data: Any) -> MultiAgentBatch:
        if training_data.episodes is None:
            return super()._make_batch_if_necessary(training_data)
        columns = self._learner_connector(
            rl_module=self.module, batch={}, episodes=training_data.episodes, shared_data={}, metrics=self.metrics
        )
        steps = sum(len(episode) for episode in training_data.episodes)
        return MultiAgentBatch({m: SampleBatch(batch) for m, batch in columns.items()}, env_steps=steps)

    def _create_iterator_if_necessary(
        self,
        *,
        training_data: Any,
        num_total_minibatches: int = 0,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        shuffle_batch_per_epoch: bool = False,
        **kwargs: Any,
    ) -> Iterator[MultiAgentBatch]:
        batch = self._make_batch_if_necessary(training_data)
        policies = {m: b for m, b in batch.policy_batches.items() if self.should_module_be_updated(m, batch)}
        return minibatches(
            policies,
            num_epochs,
            minibatch_size,
            shuffle=shuffle_batch_per_epoch,
            num_total=num_total_minibatches,
        )

    def _log_steps_trained_metrics(self, batch: MultiAgentBatch) -> None:
        for module_id, module_batch in batch.policy_batches.items():
            steps = _steps(module_batch)
            self.metrics.log_value((module_id, NUM_MODULE_STEPS_TRAINED), steps, reduce="sum")
            self.metrics.log_value((ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME), steps, reduce="lifetime_sum")

    def _set_slicing_by_batch_id(self, batch: MultiAgentBatch, *, value: bool) -> MultiAgentBatch:
        return batch  # RLlib's own minibatch slicing is not in use

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """RLlib's PPO loss, plus the curiosity module's own loss where there is one."""
        loss = super().compute_loss_for_module(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)
        module = self.module[module_id].unwrapped()
        if not isinstance(module, IntrinsicRewardAPI):
            return loss
        mask = batch.get(Columns.LOSS_MASK)
        rows = [batch[name] for name in (Columns.OBS, Columns.ACTIONS, Columns.NEXT_OBS)]
        if mask is not None:
            rows = [tree_map(lambda a: a[mask], row) for row in rows]
        own, logged = module.curiosity_loss(*rows)
        self.metrics.log_dict({name: value.detach() for name, value in logged.items()}, key=module_id, window=1)
        return loss + module.loss_weight * own

    def apply_gradients(self, gradients_dict: dict[Any, torch.Tensor]) -> None:
        """Steps the optimizers; a non-finite gradient is an error that names the parameters."""
        norms = torch._foreach_norm([g for g in gradients_dict.values() if g is not None])
        if not torch.isfinite(torch.stack(norms).sum()):
            raise NonFiniteGradientError(f"non-finite gradient in {', '.join(self._non_finite(gradients_dict))}")
        for parameter, gradient in gradients_dict.items():
            self._params[parameter].grad = gradient
        for names in self._module_optimizers.values():
            for name in names:
                self._named_optimizers[name].step()

    def _non_finite(self, gradients: dict[Any, torch.Tensor]) -> list[str]:
        bad = {id(p) for p, g in gradients.items() if g is not None and not torch.isfinite(g).all()}
        return [
            f"{module_id}.{name}"
            for module_id, module in self.module.items()
            for name, parameter in module.named_parameters()
            if id(parameter) in bad
        ]


def minibatches(
    batches: dict[str, SampleBatch], num_epochs: int, minibatch_size: int | None, *, shuffle: bool, num_total: int = 0
) -> Iterator[MultiAgentBatch]:
    """Yields minibatches of every module's batch, epoch by epoch.

    Args:
        batches: module id -> columns; rows (R, ...) or, with a loss mask, sequences (S, L, ...), which stay whole.
        num_epochs: passes over the batch.
        minibatch_size: agent-steps of a module in one minibatch; None takes the batch whole. A remainder is spread
            over the minibatches, so that all of an epoch's are about as large and none is tiny.
        shuffle: a new order each epoch.
        num_total: stop after this many and go round until then (several learners must step equally often); 0 means
            one round per epoch.
    """
    if not batches:
        return
    parts = {m: max(1, round(_steps(batch) / minibatch_size)) if minibatch_size else 1 for m, batch in batches.items()}
    rounds = max(parts.values())
    total = num_total or num_epochs * rounds
    for number in range(total):
        if number % rounds == 0:
            cuts = {m: _cut(_rows(batch), parts[m], shuffle and num_epochs > 1) for m, batch in batches.items()}
        turn, minibatch = number % rounds, {}
        for module_id, batch in batches.items():
            cut = cuts[module_id]
            if turn >= len(cut) and not num_total:
                continue  # this module's epoch is over
            index = cut[turn % len(cut)]
            minibatch[module_id] = SampleBatch({k: tree_map(lambda a, i=index: a[i], v) for k, v in batch.items()})
        yield MultiAgentBatch(minibatch, env_steps=sum(_steps(b) for b in minibatch.values()))


def _rows(batch: SampleBatch) -> int:
    return len(batch[Columns.ACTIONS])


def _steps(batch: SampleBatch) -> int:
    mask = batch.get(Columns.LOSS_MASK)
    return _rows(batch) if mask is None else int(mask.sum())


def _cut(rows: int, parts: int, shuffle: bool) -> list[torch.Tensor]:
    order = torch.randperm(rows) if shuffle else torch.arange(rows)
    return [part for part in torch.tensor_split(order, min(parts, rows)) if len(part)]
