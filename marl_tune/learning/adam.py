"""The Adam of our learners: torch's, without the import of torch's compiler."""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer


class Adam(torch.optim.Adam):
    """`torch.optim.Adam` whose methods do not import `torch._dynamo`. The updates are equal bit by bit.

    torch wraps the methods below. The wrappers tell torch's compiler what it must not trace, and for that they import
    the compiler, which takes seconds. Our optimizers are never compiled: `cluster.torch_compile` compiles only the
    forward pass of the modules. So this class uses the functions inside the wrappers. torch's own classes stay as they
    are.

    `differentiable=True` is not supported: a step never records gradients.

    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> weight.grad = torch.ones(1)
    >>> Adam([weight], lr=0.1).step()
    >>> weight.data
    tensor([0.9000])

    Gain: 4.0 s of the processor's time, 34 % of a lone trial of one iteration; see docs/decisions/startup_and_ray.md.
    Test: `tests/learning/test_adam.py`.
    """

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
