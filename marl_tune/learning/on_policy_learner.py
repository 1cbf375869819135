"""The update of on-policy actor-critic methods: one train batch, its minibatches, one gradient step for each."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, Generic, NoReturn, TypeVar

import torch
from ray.rllib.connectors.learner import LearnerConnectorPipeline
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchDistribution
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import ALL_MODULES, NUM_MODULE_STEPS_TRAINED, NUM_MODULE_STEPS_TRAINED_LIFETIME

from marl_tune.envs.trees import tree_map
from marl_tune.learning.central_critic import OLD_OUTPUTS, CriticSettings, normalise_targets
from marl_tune.learning.central_critic_loss import critic_loss
from marl_tune.learning.gradients import GradientGroup, clip_and_check
from marl_tune.learning.live_settings import CENTRAL_CRITIC, COMPILE, PRECISION, REWARD_SCALE, LiveSettings
from marl_tune.learning.minibatches import Batch, minibatches, num_agent_steps
from marl_tune.learning.train_batch import BatchSettings, EpisodesToTrainBatch
from marl_tune.modules.central_critic import CentralCritic
from marl_tune.modules.communication import MESSAGE_NOISE
from marl_tune.modules.curiosity import IntrinsicRewardAPI
from marl_tune.sampling.policies import Arrays
from marl_tune.sharing.schemes import CRITIC

LossSettings = TypeVar("LossSettings")  # what an algorithm's loss reads in one update
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


class OnPolicyLearner(LiveSettings, Generic[LossSettings]):
    """Learns from each train batch for some epochs. It knows no algorithm: a subclass has the loss.

    It differs from RLlib's learners in these points.

    - `EpisodesToTrainBatch` replaces the learner connector pipeline.
    - Minibatches are made by indices, without copies of the whole batch. Sequences stay whole.
    - What is logged is computed once per update, from its last minibatch, because RLlib keeps only that.
    - One check per step over all gradients finds non-finite ones and gives their norms. One fused optimizer call.

    A subclass overrides `_policy_loss` and `_update_settings`, and `_batch_settings` if its advantages are computed
    otherwise.
    """

    # -- what a subclass defines -------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _policy_loss(
        self,
        inputs: torch.Tensor,
        values: torch.Tensor | None,
        batch: Batch,
        dist_class: type[TorchDistribution],
        settings: LossSettings,
        with_stats: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes the loss of one minibatch for the actor and its own critic.

        Args:
            inputs: (..., k) present inputs of the action distribution; the leading axes are rows (R,) or sequences
                (S, T).
            values: (...,) present V; None if the module has no critic of its own.
            batch: those of the columns `LOSS_COLUMNS` that exist.
            dist_class: RLlib's class of the action distribution.
            settings: from `_update_settings`, for this update.
            with_stats: whether to compute what is logged.

        Returns:
            The scalar loss, and name -> scalar to be logged.
        """

    @abc.abstractmethod
    def _update_settings(self, module_id: str) -> LossSettings:
        """Returns the settings of a module's loss. Called once per update: reading a number from a GPU makes the host
        wait."""

    def _batch_settings(self, module_id: str) -> BatchSettings:
        """Returns the settings of a module's advantages. Called for every batch."""
        config = self.config.get_config_for_module(module_id)
        scale = config.learner_config_dict[REWARD_SCALE]
        return BatchSettings(config.gamma, config.lambda_, config.use_critic, scale)

    # -- RLlib's calls -----------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Builds modules and optimizers, and the pipeline from episodes to the train batch."""
        # add_default_connectors_to_learner_pipeline is False, so RLlib's build() leaves the pipeline empty.
        super().build()
        train_batch = EpisodesToTrainBatch(self._batch_settings, self._device)
        self._learner_connector = LearnerConnectorPipeline(connectors=[train_batch])
        if self.config.learner_config_dict[COMPILE]:
            # RLlib's own switch has no effect on a MultiRLModule.
            for module in self._module.values():
                module._forward_train = torch.compile(module._forward_train)
        # Only now: RLlib's wrapper for several learners, made by super().build(), refuses a module without a gradient.
        frozen = {m: module for m, module in self._module.items() if not self.should_module_be_updated(m)}
        for module in frozen.values():
            module.requires_grad_(False)
        self._frozen = set(frozen)
        self._bfloat16 = self.config.learner_config_dict[PRECISION] == "bfloat16"

    def update(
        self,
        *,
        training_data: TrainingData,
        timesteps: dict[str, int] | None = None,
        num_total_minibatches: int = 0,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        shuffle_batch_per_epoch: bool = False,
        _no_metrics_reduce: bool = False,
        **_: Any,
    ) -> dict[str, object] | None:
        """Learns from one train batch. Arguments and result are those of RLlib's `Learner.update`.

        Raises:
            NonFiniteGradientError: if a gradient is NaN or infinite. The parameters are those of the step before.
        """
        self._check_is_built()
        self.before_gradient_based_update(timesteps=timesteps or {})
        training_data.validate()
        training_data.solve_refs()
        self._weights_seq_no += 1
        critic = self._central_critic()
        batches = self._loss_batches(self._make_batch_if_necessary(training_data).policy_batches)
        if critic is not None and CRITIC in batches:
            batches[CRITIC] = normalise_targets(critic, batches[CRITIC], self.distributed)
        for module_id in batches:
            self.module[module_id].train()
        settings = {module_id: self._update_settings(module_id) for module_id in batches}
        steps: dict[str, int | torch.Tensor] = dict.fromkeys(batches, 0)
        for minibatch, last in minibatches(
            batches, num_epochs, minibatch_size, shuffle=shuffle_batch_per_epoch, num_total=num_total_minibatches
        ):
            self._step(minibatch, settings, last)
            for module_id, batch in minibatch.items():
                steps[module_id] += num_agent_steps(batch)
        self._log_steps(steps)
        self.after_gradient_based_update(timesteps=timesteps or {})
        if _no_metrics_reduce:
            return None
        # RLlib logs something for every module, and sends the weights of logged modules to the runners.
        return {name: values for name, values in self.metrics.reduce().items() if name not in self._frozen}

    def compute_loss_for_module(self, **_: Any) -> NoReturn:
        """RLlib's place for a loss. `update` does not call it."""
        raise NotImplementedError("the loss of an on-policy learner is _policy_loss, called by update")

    # -- one update --------------------------------------------------------------------------------------------------

    def _central_critic(self) -> CentralCritic | None:
        """The central critic, with its values normalised or not, as the present settings say."""
        settings: CriticSettings | None = self.config.learner_config_dict[CENTRAL_CRITIC]
        if settings is None:
            return None
        critic = self.module[CRITIC].unwrapped()
        critic.set_normalised(settings.normalise_values)
        return critic

    def _make_batch_if_necessary(self, training_data: TrainingData) -> MultiAgentBatch:
        if training_data.episodes is None:
            return super()._make_batch_if_necessary(training_data)
        # Episodes of RLlib's own runner hold all agents and have no module_id.
        episodes = training_data.episodes
        learned_from = [piece for piece in episodes if getattr(piece, "module_id", None) not in self._frozen]
        columns = self._learner_connector(
            rl_module=self.module, batch={}, episodes=learned_from, shared_data={}, metrics=self.metrics
        )
        steps = sum(len(episode) for episode in training_data.episodes)
        return MultiAgentBatch({m: SampleBatch(batch) for m, batch in columns.items()}, env_steps=steps)

    def _loss_batches(self, batches: dict[str, Batch]) -> dict[str, Batch]:
        """For every module that trains, the columns that its loss reads."""
        kept: dict[str, Batch] = {}
        for module_id, batch in batches.items():
            if self.should_module_be_updated(module_id, batch):
                kept[module_id] = {name: batch[name] for name in self._loss_columns(module_id) if name in batch}
        return kept

    def _loss_columns(self, module_id: str) -> tuple[str, ...]:
        """Names of the columns that a module's loss reads, if they exist."""
        return LOSS_COLUMNS

    def _step(self, minibatch: dict[str, Batch], settings: dict[str, LossSettings], last: set[str]) -> None:
        """Takes one gradient step of every module in the minibatch, and logs for the modules whose last one it is."""
        names = [name for m in (*minibatch, ALL_MODULES) for name in self._module_optimizers.get(m, ())]
        for name in names:
            self._named_optimizers[name].zero_grad(set_to_none=True)
        losses = {m: self.module_loss(m, batch, settings[m], m in last) for m, batch in minibatch.items()}
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

    def module_loss(self, module_id: str, batch: Batch, settings: LossSettings, with_stats: bool) -> torch.Tensor:
        """Returns the whole loss of a module for one minibatch: the algorithm's, plus that of curiosity if it has one.

        Args:
            module_id: of a module that acts, or of the central critic.
            batch: its minibatch.
            settings: from `_update_settings`, for this update.
            with_stats: whether to compute and log what is logged.
        """
        module, config = self.module[module_id].unwrapped(), self.config.get_config_for_module(module_id)
        if isinstance(module, CentralCritic):
            return self._critic_loss(batch, with_stats)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            # RLlib's public `forward_train` sets the mode of all submodules each time, which is slow.
            out = self.module[module_id]._forward_train(batch)
            own_critic = config.use_critic and module.has_critic
            values = module.compute_values(batch, out[Columns.EMBEDDINGS]) if own_critic else None
        inputs = out[Columns.ACTION_DIST_INPUTS].float()
        values = None if values is None else values.float()
        loss, stats = self._policy_loss(inputs, values, batch, module.get_train_action_dist_cls(), settings, with_stats)
        if isinstance(module, IntrinsicRewardAPI):
            own, own_stats = module.curiosity_loss(*_transitions(batch))
            loss = loss + module.loss_weight * own
            stats |= {name: value.detach() for name, value in own_stats.items()}
        if with_stats:
            self.metrics.log_dict(stats, key=module_id, window=1)
        return loss

    def _critic_loss(self, batch: Batch, with_stats: bool) -> torch.Tensor:
        """The value loss of the central critic."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            outputs = self.module[CRITIC]._forward_train(batch)[Columns.VF_PREDS]
        own: CriticSettings = self.config.learner_config_dict[CENTRAL_CRITIC]
        config = self.config.get_config_for_module(CRITIC)
        loss, stats = critic_loss(outputs.float(), batch, own, config.vf_loss_coeff, config.vf_clip_param, with_stats)
        if with_stats:
            self.metrics.log_dict(stats, key=CRITIC, window=1)
        return loss

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

    def _log_steps(self, steps: Mapping[str, int | torch.Tensor]) -> None:
        for module_id, count in ((module_id, int(count)) for module_id, count in steps.items()):
            self.metrics.log_value((module_id, NUM_MODULE_STEPS_TRAINED), count, reduce="sum")
            self.metrics.log_value((ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME), count, reduce="lifetime_sum")


def _transitions(batch: Batch) -> list[Arrays]:
    """Observations, actions and next observations of all steps without padding: rows (R, ...)."""
    mask = batch.get(Columns.LOSS_MASK)
    columns = [batch[name] for name in (Columns.OBS, Columns.ACTIONS, Columns.NEXT_OBS)]
    return columns if mask is None else [tree_map(lambda a: a[mask], column) for column in columns]
