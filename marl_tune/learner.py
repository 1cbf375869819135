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
from marl_tune.central_values import OLD_OUTPUTS
from marl_tune.critic_loss import CriticSettings, critic_loss, learnable
from marl_tune.gradients import GradientGroup, clip_and_check
from marl_tune.minibatches import Batch, minibatches, steps_of
from marl_tune.ppo_loss import PpoSettings, ppo_loss
from marl_tune.sharing.module_specs import MODULE_SETTINGS
from marl_tune.sharing.schemes import CRITIC
from marl_tune.train_batch import BatchSettings, EpisodesToTrainBatch
from modules.central_critic import CentralCritic
from modules.communication import MESSAGE_NOISE
from modules.curiosity import IntrinsicRewardAPI
from modules.shared_encoder import SharedEncoderModules

CURIOSITY_OPTIMIZER = "curiosity_optimizer"
# Keys of AlgorithmConfig.learner_config_dict:
OPTIMIZER = "optimizer"  # Adam's settings
PRECISION = "precision"  # float32 | bfloat16
COMPILE = "compile"  # bool: compile the modules' forward pass in training
REWARD_SCALE = "reward_scale"  # factor on rewards
CENTRAL_CRITIC = "central_critic"  # CriticSettings; None where no critic is shared
LOSS_COLUMNS = (
    Columns.OBS,
    Columns.ACTIONS,
    Columns.ACTION_LOGP,
    Postprocessing.ADVANTAGES,
    Postprocessing.VALUE_TARGETS,
    Columns.LOSS_MASK,
    Columns.STATE_IN,
    Columns.NEXT_OBS,
    OLD_OUTPUTS,
    MESSAGE_NOISE,
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

    _lr_left = 1.0  # share of every lr that `anneal` has left

    def build(self) -> None:
        # add_default_connectors_to_learner_pipeline is False: PPOLearner.build() then leaves the pipeline empty.
        super().build()
        train_batch = EpisodesToTrainBatch(self._batch_settings, self._device)
        self._learner_connector = LearnerConnectorPipeline(connectors=[train_batch])
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

    def configure_optimizers(self) -> None:
        """An optimizer for each module, or one for all where they share an encoder: its gradient is one sum."""
        if not isinstance(self.module, SharedEncoderModules):
            super().configure_optimizers()
            return
        parameters = list(dict.fromkeys(p for m in self.module.values() for p in self.get_parameters(m.unwrapped())))
        self._register_adam(ALL_MODULES, DEFAULT_OPTIMIZER, parameters, self.config)

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """One Adam for actor and critic, and one for curiosity; none for a module that does not train.

        RLlib clips gradients by optimizer: a large gradient of the one must not shrink the steps of the other.
        """
        if not self.should_module_be_updated(module_id):
            return
        for name, parameters in parameter_groups(self._module[module_id].unwrapped()).items():
            self._register_adam(module_id, name, parameters, config)

    def _register_adam(self, module_id: str, name: str, parameters: list[torch.nn.Parameter], config: Any) -> None:
        settings = self._adam_settings(module_id, config)
        self.register_optimizer(
            module_id=module_id,
            optimizer_name=name,
            optimizer=torch.optim.Adam(parameters, fused=True, **settings),
            params=parameters,
            lr_or_lr_schedule=settings["lr"],
        )

    def _adam_settings(self, module_id: str, config: Any) -> dict[str, Any]:
        adam = config.learner_config_dict[OPTIMIZER]
        return {
            "lr": self._lr_left * step_size(module_id, config),
            "betas": tuple(adam["betas"]),
            "eps": adam["eps"],
            "weight_decay": adam["weight_decay"],
        }

    # -- settings that change while the learner lives

    def apply_settings(self, config: Any) -> None:
        """Makes `config`, of the same structure, the one that the next update reads, everywhere it is read."""
        self.config, self._lr_left = config.copy(copy_frozen=False), 1.0
        # Both are filled from self.config at their first use.
        self.entropy_coeff_schedulers_per_module.clear()
        self.curr_kl_coeffs_per_module.clear()
        self._reapply_optimizer_settings()
        for module_id, module in self.module.items():
            module.unwrapped().apply_live_settings(config.learner_config_dict[MODULE_SETTINGS][module_id])

    def anneal(self, lr: float, entropy: float) -> None:
        """Makes every lr and entropy coefficient so large a share of what the settings say, from the next update on."""
        self._lr_left = lr
        self._reapply_optimizer_settings()
        for module_id, _ in self.module.items():
            self.entropy_coeff_schedulers_per_module[module_id] = Scheduler(
                fixed_value_or_schedule=entropy * self.config.get_config_for_module(module_id).entropy_coeff,
                framework=self.framework,
                device=self._device,
            )

    def _reapply_optimizer_settings(self) -> None:
        for name, optimizer in self._named_optimizers.items():
            module_id = self._optimizer_name_to_module[name]
            settings = self._adam_settings(module_id, self.config.get_config_for_module(module_id))
            for group in optimizer.param_groups:
                group.update(settings)
            # RLlib writes the schedule's value back into the optimizer after each update.
            self._optimizer_lr_schedules[optimizer] = Scheduler(
                fixed_value_or_schedule=settings["lr"], framework=self.framework, device=self._device
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
        critic = self._central_critic()
        batches = self._loss_batches(self._make_batch_if_necessary(training_data).policy_batches)
        if critic is not None and CRITIC in batches:
            batches[CRITIC] = learnable(critic, batches[CRITIC], self.distributed)
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

    def should_module_be_updated(self, module_id: str, multi_agent_batch: Any = None) -> bool:
        """As RLlib's; but the critic that all agents share is none of RLlib's policies, of which alone
        `policies_to_train` can speak, and is always trained."""
        return module_id == CRITIC or super().should_module_be_updated(module_id, multi_agent_batch)

    def _central_critic(self) -> CentralCritic | None:
        """The critic that all agents share, its values normalised or not as the present settings say."""
        settings: CriticSettings | None = self.config.learner_config_dict[CENTRAL_CRITIC]
        if settings is None:
            return None
        critic = self.module[CRITIC].unwrapped()
        critic.set_normalised(settings.normalise_values)
        return critic

    def _make_batch_if_necessary(self, training_data: TrainingData) -> MultiAgentBatch:
        if training_data.episodes is None:
            return super()._make_batch_if_necessary(training_data)
        # RLlib's own runner gives episodes of all agents together, without a module.
        episodes = training_data.episodes
        learned_from = [piece for piece in episodes if getattr(piece, "module_id", None) not in self._frozen]
        columns = self._learner_connector(
            rl_module=self.module, batch={}, episodes=learned_from, shared_data={}, metrics=self.metrics
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
        names = [name for m in (*minibatch, ALL_MODULES) for name in self._module_optimizers.get(m, ())]
        for name in names:
            self._named_optimizers[name].zero_grad(set_to_none=True)
        losses = {m: self._loss(m, batch, settings[m], m in last) for m, batch in minibatch.items()}
        torch.stack(list(losses.values())).sum().backward()
        norms = clip_and_check([self._gradient_group(name) for name in names], self._name_of)
        for name, norm in zip(names, norms, strict=True):
            self._named_optimizers[name].step()
            owner = self._optimizer_name_to_module[name]
            short = name.removeprefix(f"{owner}_")
            for module_id in last if owner == ALL_MODULES else last & {owner}:
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
        if isinstance(module, CentralCritic):
            return self._critic_loss(batch, settings, with_stats)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            # The module's own method: `forward_train` walks through all submodules to set their mode, each time.
            out = self.module[module_id]._forward_train(batch)
            own_critic = config.use_critic and module.has_critic
            values = module.compute_values(batch, out[Columns.EMBEDDINGS]) if own_critic else None
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

    def _batch_settings(self, module_id: str) -> BatchSettings:
        config = self.config.get_config_for_module(module_id)
        scale = config.learner_config_dict[REWARD_SCALE]
        return BatchSettings(config.gamma, config.lambda_, config.use_critic, scale)

    def _critic_loss(self, batch: Batch, settings: PpoSettings, with_stats: bool) -> torch.Tensor:
        """The value loss of the critic that all agents share."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            outputs = self.module[CRITIC]._forward_train(batch)[Columns.VF_PREDS]
        own: CriticSettings = self.config.learner_config_dict[CENTRAL_CRITIC]
        loss, stats = critic_loss(
            outputs.float(), batch, own, settings.vf_loss_coeff, settings.vf_clip_param, with_stats
        )
        if with_stats:
            self.metrics.log_dict(stats, key=CRITIC, window=1)
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


def parameter_groups(module: Any) -> dict[str, list[torch.nn.Parameter]]:
    """Name of an optimizer -> what it trains of a module; none is empty."""
    apart = module.curiosity_parameters() if isinstance(module, IntrinsicRewardAPI) else []
    own = {id(parameter) for parameter in apart}
    rest = [parameter for parameter in module.parameters() if id(parameter) not in own]
    groups = {DEFAULT_OPTIMIZER: rest, CURIOSITY_OPTIMIZER: apart}
    return {name: parameters for name, parameters in groups.items() if parameters}


def step_size(module_id: str, config: Any) -> float:
    """The lr of a module: that of the critic that all share may be its own."""
    critic: CriticSettings | None = config.learner_config_dict[CENTRAL_CRITIC]
    return critic.lr if critic is not None and module_id == CRITIC else config.lr


def _rows(batch: Batch) -> list[Any]:
    """Observations, actions and next observations of every step that is not padding: rows (R, ...)."""
    mask = batch.get(Columns.LOSS_MASK)
    columns = [batch[name] for name in (Columns.OBS, Columns.ACTIONS, Columns.NEXT_OBS)]
    return columns if mask is None else [tree_map(lambda a: a[mask], column) for column in columns]
