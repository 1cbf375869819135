"""Optimizers, and settings that change while a learner exists."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner.learner import DEFAULT_OPTIMIZER
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.metrics import ALL_MODULES
from ray.rllib.utils.schedules.scheduler import Scheduler

from marl_tune.learning.adam import Adam
from marl_tune.learning.central_critic import CriticSettings
from marl_tune.modules.curiosity import IntrinsicRewardAPI
from marl_tune.modules.shared_encoder import SharedEncoderModules
from marl_tune.sharing.module_specs import MODULE_SETTINGS
from marl_tune.sharing.schemes import CRITIC

CURIOSITY_OPTIMIZER = "curiosity_optimizer"
# Keys of AlgorithmConfig.learner_config_dict:
OPTIMIZER = "optimizer"  # Adam's settings
PRECISION = "precision"  # float32 | bfloat16
COMPILE = "compile"  # bool: compile the modules' forward pass of training
REWARD_SCALE = "reward_scale"  # factor on rewards
CENTRAL_CRITIC = "central_critic"  # CriticSettings; None without a central critic


class LiveSettings(TorchLearner):
    """A learner whose settings can change between two updates: by PBT, by annealing, by a new stage of a curriculum.

    A loaded optimizer state brings moments, but no settings. So a PBT clone trains with its own lr, betas, eps and
    weight decay from its first update on (https://github.com/ray-project/ray/issues/62173).
    """

    _lr_left = 1.0  # present factor on every lr, set by `anneal`
    _entropy_left = 1.0  # present factor on every entropy coefficient, set by `anneal`

    def configure_optimizers(self) -> None:
        """Makes one optimizer per module, or one for all modules that share an encoder: its gradient is their sum."""
        if not isinstance(self.module, SharedEncoderModules):
            super().configure_optimizers()
            return
        parameters = list(dict.fromkeys(p for m in self.module.values() for p in self.get_parameters(m.unwrapped())))
        self._register_adam(ALL_MODULES, DEFAULT_OPTIMIZER, parameters, self.config)

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        """Makes one Adam for actor and critic, and one for curiosity; none for a module that does not train.

        RLlib clips gradients per optimizer. So a large gradient of curiosity does not shrink the steps of the policy.
        """
        if not self.should_module_be_updated(module_id):
            return
        for name, parameters in parameter_groups(self._module[module_id].unwrapped()).items():
            self._register_adam(module_id, name, parameters, config)

    def should_module_be_updated(self, module_id: str, multi_agent_batch: MultiAgentBatch | None = None) -> bool:
        """Returns whether a module trains. A central critic always does.

        RLlib decides by `policies_to_train`, which cannot name the central critic: it is no policy.
        """
        return module_id == CRITIC or super().should_module_be_updated(module_id, multi_agent_batch)

    def apply_settings(self, config: AlgorithmConfig) -> None:
        """Makes all parts of the next update read this config, which must have the same structure as the old one."""
        self.config, self._lr_left, self._entropy_left = config.copy(copy_frozen=False), 1.0, 1.0
        self._reapply_optimizer_settings()
        for module_id, module in self.module.items():
            module.unwrapped().apply_live_settings(config.learner_config_dict[MODULE_SETTINGS][module_id])

    def anneal(self, lr: float, entropy: float) -> None:
        """Sets factors on all learning rates and entropy coefficients, from the next update on.

        Args:
            lr: factor on the lr of the settings, in [0, 1].
            entropy: factor on the entropy coefficient of the settings, in [0, 1].
        """
        self._lr_left, self._entropy_left = lr, entropy
        self._reapply_optimizer_settings()

    def _register_adam(self, module_id: str, name: str, parameters: list[torch.nn.Parameter], config: Any) -> None:
        settings = self._adam_settings(module_id, config)
        self.register_optimizer(
            module_id=module_id,
            optimizer_name=name,
            optimizer=Adam(parameters, fused=True, **settings),
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

    def _reapply_optimizer_settings(self) -> None:
        for name, optimizer in self._named_optimizers.items():
            module_id = self._optimizer_name_to_module[name]
            settings = self._adam_settings(module_id, self.config.get_config_for_module(module_id))
            for group in optimizer.param_groups:
                group.update(settings)
            # After each update, RLlib sets the optimizer's lr to the value of this schedule.
            self._optimizer_lr_schedules[optimizer] = Scheduler(
                fixed_value_or_schedule=settings["lr"], framework=self.framework, device=self._device
            )

    def _set_optimizer_state(self, state: dict[str, object]) -> None:
        super()._set_optimizer_state(state)
        self._reapply_optimizer_settings()


def parameter_groups(module: RLModule) -> dict[str, list[torch.nn.Parameter]]:
    """Returns the parameters of each optimizer of a module, by the optimizer's name. No list is empty."""
    apart = module.curiosity_parameters() if isinstance(module, IntrinsicRewardAPI) else []
    own = {id(parameter) for parameter in apart}
    rest = [parameter for parameter in module.parameters() if id(parameter) not in own]
    groups = {DEFAULT_OPTIMIZER: rest, CURIOSITY_OPTIMIZER: apart}
    return {name: parameters for name, parameters in groups.items() if parameters}


def step_size(module_id: str, config: AlgorithmConfig) -> float:
    """Returns the lr of a module. A central critic can have its own."""
    critic: CriticSettings | None = config.learner_config_dict[CENTRAL_CRITIC]
    return critic.lr if critic is not None and module_id == CRITIC else config.lr
