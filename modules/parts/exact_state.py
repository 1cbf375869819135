"""What RLlib rounds when it loads a module's state."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def load_float64(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Puts the float64 numbers of a saved state into the module as they are.

    `TorchRLModule.set_state` turns every float into float32 on its way (`convert_to_torch_tensor`): running sums, and
    with them a trial that was paused, would go on a little differently.

    Args:
        module: what has just taken over `state`.
        state: name -> array, as of `state_dict`.
    """
    for name, own in module.state_dict().items():
        if own.dtype == torch.float64 and name in state:
            own.copy_(torch.as_tensor(state[name], dtype=torch.float64))
