"""Loads the float64 numbers of a module's state, which RLlib rounds to float32."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn


@torch.no_grad()
def load_float64(module: nn.Module, state: Mapping[str, np.ndarray]) -> None:
    """Copies the float64 numbers of a saved state into the module, without rounding.

    `TorchRLModule.set_state` converts every float to float32 (`convert_to_torch_tensor`). Running sums would change a
    little, and a trial that was paused would continue differently.

    Args:
        module: the module that has just loaded `state`.
        state: name -> array, as in `state_dict`.
    """
    for name, own in module.state_dict().items():
        if own.dtype == torch.float64 and name in state:
            own.copy_(torch.as_tensor(state[name], dtype=torch.float64))
