"""PPO's learner: RLlib's place in the algorithm; our train batch, loss, minibatches and settings that can change."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.learner import LearnerConnectorPipeline
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import DEFAULT_OPTIMIZER
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import (
    ALL_MODULES,
    NUM_MODULE_STEPS_TRAINED,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
)
from ray.rllib.utils.schedules.scheduler import Scheduler

from envs.trees import tree_map
from marl_tune.gradients import GradientGroup, clip_and_check
from marl_tune.minibatches import Batch, minibatches, steps_of
from marl_tune.ppo_loss import PpoSettings, ppo_loss
from marl_tune.train_batch import EpisodesToTrainBatch
from modules.curiosity import IntrinsicRewardAPI

CURIOSITY_OPTIMIZER = "curiosity_optimizer"
# Keys of AlgorithmConfig.learner_config_dict:
OPTIMIZER = "optimizer"  # Adam's settings
PRECISION = "precision"  # float32 | bfloat16
COMPILE = "compile"  # bool: compile the modules' forward pass in training
REWARD_SCALE = "reward_scale"  # factor on rewards
MODULE_SETTINGS = "module_settings"  # module id -> model config, whose live fields a running module takes over
LOSS_COLUMNS = (
    Columns.OBS,
    Columns.ACTIONS,
    Columns.ACTION_LOGP,
    Postprocessing.ADVANTAGES,
    Postprocessing.VALUE_TARGETS,
    Columns.LOSS_MASK,
    Columns.STATE_IN,
    Columns.NEXT_OBS,
)


class MarlPPOLearner(PPOTorchLearner):
    """Differs from RLlib's PPO learner in what surrounds the arithmetic of an update.

    - `EpisodesToTrainBatch` replaces the learner connector pipeline.
    - Minibatches are index sets over the tensors of the batch, without copies of the whole; sequences stay whole.
    - `ppo_loss` takes one log-softmax for what RLlib's loss builds distributions for; what is logged is worked out once
      an update, from its last minibatch, as RLlib keeps only that.
    - One finite check a step over all gradients, which gives their norm too; one fused optimizer call.
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
            reward_scale=self.config.learner_config_dict[REWARD_SCALE],
            device=self._device,
        )
        self._learner_connector = LearnerConnectorPipeline(connectors=[self._train_batch])
        if self.config.learner_config_dict[COMPILE]:
            # RLlib's own switch does nothing where there are several modules, or could be.
            for module in self._module.values():
                module._forward_train = torch.compile(module._forward_train)
        # After super().build(): RLlib's wrapper for several learners refuses a module without a gradient.
        frozen = {m: module for m, module in self._module.items() if not self.should_module_be_updated(m)}
        for module in frozen.values():
            module.requires_grad_(False)
        self._frozen = set(frozen)
        self._bfloat16 = self.config.learner_config_dict[PRECISION] == "bfloat16"

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """One Adam for actor and critic, and one for curiosity; none for a module that does not train.

        RLlib clips gradients by optimizer: a large gradient of the one must not shrink the steps of the other.
        """
        if not self.should_module_be_updated(module_id):
            return
        module = self._module[module_id].unwrapped()
        apart = module.curiosity_parameters() if isinstance(module, IntrinsicRewardAPI) else []
        own = {id(parameter) for parameter in apart}
        rest = [parameter for parameter in self.get_parameters(module) if id(parameter) not in own]
        for name, parameters in ((DEFAULT_OPTIMIZER, rest), (CURIOSITY_OPTIMIZER, apart)):
            if parameters:
                self.register_optimizer(
                    module_id=module_id,
                    optimizer_name=name,
                    optimizer=torch.optim.Adam(parameters, fused=True, **self._adam_settings(config)),
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
        self._train_batch.reward_scale = config.learner_config_dict[REWARD_SCALE]
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

    def update(
        self,
        *,
        training_data: TrainingData,
        timesteps: dict[str, Any] | None = None,
        num_total_minibatches: int = 0,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        shuffle_batch_per_epoch: bool = False,
        _no_metrics_reduce: bool = False,
        **_: Any,
    ) -> Any:
        """Learns from one train batch: RLlib's `Learner.update`, with its arguments and its result.

        Raises:
            NonFiniteGradientError: when a gradient is NaN or infinite; the parameters stay those of the step before.
        """
        self._check_is_built()
        self.before_gradient_based_update(timesteps=timesteps or {})
        training_data.validate()
        training_data.solve_refs()
        self._weights_seq_no += 1
        batches = self._loss_batches(self._make_batch_if_necessary(training_data).policy_batches)
        for module_id in batches:
            self.module[module_id].train()
        # Once: their coefficients lie on the device, and reading one makes the host wait.
        settings = {module_id: self._ppo_settings(module_id) for module_id in batches}
        steps: dict[str, Any] = dict.fromkeys(batches, 0)
        for minibatch, last in minibatches(
            batches, num_epochs, minibatch_size, shuffle=shuffle_batch_per_epoch, num_total=num_total_minibatches
        ):
            self._step(minibatch, settings, last)
            for module_id, batch in minibatch.items():
                steps[module_id] += steps_of(batch)
        self._log_steps(steps)
        self.after_gradient_based_update(timesteps=timesteps or {})
        if _no_metrics_reduce:
            return None
        # RLlib logs something of every module, and sends the weights of those that are logged to the runners.
        return {name: values for name, values in self.metrics.reduce().items() if name not in self._frozen}

    def _make_batch_if_necessary(self, training_data: TrainingData) -> MultiAgentBatch:
        if training_data.episodes is None:
            return super()._make_batch_if_necessary(training_data)
        columns = self._learner_connector(
            rl_module=self.module, batch={}, episodes=training_data.episodes, shared_data={}, metrics=self.metrics
        )
        steps = sum(len(episode) for episode in training_data.episodes)
        return MultiAgentBatch({m: SampleBatch(batch) for m, batch in columns.items()}, env_steps=steps)

    def _loss_batches(self, batches: dict[str, Batch]) -> dict[str, Batch]:
        """Of every module that trains, the columns that its loss reads."""
        kept: dict[str, Batch] = {}
        for module_id, batch in batches.items():
            if self.should_module_be_updated(module_id, batch):
                config = self.config.get_config_for_module(module_id)
                columns = (*LOSS_COLUMNS, Columns.ACTION_DIST_INPUTS) if config.use_kl_loss else LOSS_COLUMNS
                kept[module_id] = {name: batch[name] for name in columns if name in batch}
        return kept

    def _step(self, minibatch: dict[str, Batch], settings: dict[str, PpoSettings], last: set[str]) -> None:
        """One gradient step of every module in the minibatch; what is logged comes from each module's last one."""
        names = [name for module_id in minibatch for name in self._module_optimizers[module_id]]
        for name in names:
            self._named_optimizers[name].zero_grad(set_to_none=True)
        losses = {m: self._loss(m, batch, settings[m], m in last) for m, batch in minibatch.items()}
        torch.stack(list(losses.values())).sum().backward()
        norms = clip_and_check([self._gradient_group(name) for name in names], self._name_of)
        for name, norm in zip(names, norms, strict=True):
            self._named_optimizers[name].step()
            module_id = self._optimizer_name_to_module[name]
            if module_id in last:
                short = name.removeprefix(f"{module_id}_")
                self.metrics.log_value((module_id, f"gradients_{short}_global_norm"), norm, window=1)
        for module_id in last:
            self.metrics.log_value((module_id, self.TOTAL_LOSS_KEY), losses[module_id].detach(), window=1)

    def _gradient_group(self, name: str) -> GradientGroup:
        config = self.config.get_config_for_module(self._optimizer_name_to_module[name])
        parameters = self._optimizer_parameters[self._named_optimizers[name]]
        return GradientGroup(parameters, config.grad_clip, config.grad_clip_by)

    def _name_of(self, parameter: torch.nn.Parameter) -> str:
        return next(
            f"{module_id}.{name}"
            for module_id, module in self.module.items()
            for name, own in module.unwrapped().named_parameters()
            if own is parameter
        )

    def _loss(self, module_id: str, batch: Batch, settings: PpoSettings, with_stats: bool) -> torch.Tensor:
        """The scalar that a module's parameters descend: PPO's loss, plus the curiosity module's own if it has one."""
        module, config = self.module[module_id].unwrapped(), self.config.get_config_for_module(module_id)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            # The module's own method: `forward_train` walks through all submodules to set their mode, each time.
            out = self.module[module_id]._forward_train(batch)
            values = module.compute_values(batch, out[Columns.EMBEDDINGS]) if config.use_critic else None
        inputs = out[Columns.ACTION_DIST_INPUTS].float()
        values = None if values is None else values.float()
        loss, stats = ppo_loss(inputs, values, batch, module.get_train_action_dist_cls(), settings, with_stats)
        if isinstance(module, IntrinsicRewardAPI):
            own, own_stats = module.curiosity_loss(*_rows(batch))
            loss = loss + module.loss_weight * own
            stats |= {name: value.detach() for name, value in own_stats.items()}
        if with_stats:
            self.metrics.log_dict(stats, key=module_id, window=1)
        return loss

    def _ppo_settings(self, module_id: str) -> PpoSettings:
        config = self.config.get_config_for_module(module_id)
        return PpoSettings(
            clip_param=config.clip_param,
            entropy_coeff=float(self.entropy_coeff_schedulers_per_module[module_id].get_current_value()),
            vf_loss_coeff=config.vf_loss_coeff,
            vf_clip_param=config.vf_clip_param,
            kl_coeff=float(self.curr_kl_coeffs_per_module[module_id]) if config.use_kl_loss else None,
        )

    def _log_steps(self, steps: dict[str, Any]) -> None:
        for module_id, count in ((module_id, int(count)) for module_id, count in steps.items()):
            self.metrics.log_value((module_id, NUM_MODULE_STEPS_TRAINED), count, reduce="sum")
            self.metrics.log_value((ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME), count, reduce="lifetime_sum")


def _rows(batch: Batch) -> list[Any]:
    """Observations, actions and next observations of every step that is not padding: rows (R, ...)."""
    mask = batch.get(Columns.LOSS_MASK)
    columns = [batch[name] for name in (Columns.OBS, Columns.ACTIONS, Columns.NEXT_OBS)]
    return columns if mask is None else [tree_map(lambda a: a[mask], column) for column in columns]
