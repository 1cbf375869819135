"""Optimizers, and the settings that change while a learner lives."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.learner.learner import DEFAULT_OPTIMIZER
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
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
COMPILE = "compile"  # bool: compile the modules' forward pass in training
REWARD_SCALE = "reward_scale"  # factor on rewards
CENTRAL_CRITIC = "central_critic"  # CriticSettings; None where no critic is shared


class LiveSettings(TorchLearner):
    """A learner whose settings can change between two updates: by PBT, by annealing, by a new stage.

    A loaded optimizer state brings moments, not settings: a PBT clone trains with its own lr, betas, eps and weight
    decay from its first update on (https://github.com/ray-project/ray/issues/62173).
    """

    _lr_left = 1.0  # share of every lr that `anneal` has left
    _entropy_left = 1.0  # the same of every entropy coefficient

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

    def should_module_be_updated(self, module_id: str, multi_agent_batch: Any = None) -> bool:
        """As RLlib's; but the critic that all agents share is none of RLlib's policies, of which alone
        `policies_to_train` can speak, and is always trained."""
        return module_id == CRITIC or super().should_module_be_updated(module_id, multi_agent_batch)

    def apply_settings(self, config: Any) -> None:
        """Makes `config`, of the same structure, the one that the next update reads, everywhere it is read."""
        self.config, self._lr_left, self._entropy_left = config.copy(copy_frozen=False), 1.0, 1.0
        self._reapply_optimizer_settings()
        for module_id, module in self.module.items():
            module.unwrapped().apply_live_settings(config.learner_config_dict[MODULE_SETTINGS][module_id])

    def anneal(self, lr: float, entropy: float) -> None:
        """Makes every lr and entropy coefficient so large a share of what the settings say, from the next update on."""
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
            # RLlib writes the schedule's value back into the optimizer after each update.
            self._optimizer_lr_schedules[optimizer] = Scheduler(
                fixed_value_or_schedule=settings["lr"], framework=self.framework, device=self._device
            )

    def _set_optimizer_state(self, state: dict[str, Any]) -> None:
        super()._set_optimizer_state(state)
        self._reapply_optimizer_settings()


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
