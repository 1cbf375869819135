"""Our Adam computes what torch's computes, and does not load torch's compiler."""

import subprocess
import sys

import pytest
import torch

from marl_tune.learning.adam import Adam

SETTINGS = {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.02, "fused": True}


def trained(kind: type[torch.optim.Optimizer]) -> tuple[torch.Tensor, dict]:
    """Ten steps on a line; halfway the state is saved and loaded into a new optimizer."""
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 7))
    optimizer = kind([weight], **SETTINGS)
    for step in range(10):
        if step == 5:
            state = optimizer.state_dict()
            optimizer = kind([weight], **SETTINGS)
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        ((weight * 3 - 1) ** 2).sum().backward()
        optimizer.step()
    return weight.detach(), optimizer.state_dict()


def test_the_updates_are_those_of_torch_bit_by_bit():
    (ours, our_state), (theirs, their_state) = trained(Adam), trained(torch.optim.Adam)
    assert torch.equal(ours, theirs)
    assert our_state["param_groups"] == their_state["param_groups"]
    for name, value in their_state["state"][0].items():
        assert torch.equal(our_state["state"][0][name], value), name


def test_a_step_records_no_gradient_and_leaves_the_switch_as_it_was():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = Adam([weight], lr=0.1)
    weight.grad = torch.ones(2)
    optimizer.step()
    assert torch.is_grad_enabled()
    assert weight.grad_fn is None


STEP = """
import sys, torch
from marl_tune.learning.adam import Adam
weight = torch.nn.Parameter(torch.ones(2))
optimizer = {kind}([weight], fused=True)
optimizer.zero_grad()
weight.grad = torch.ones(2)
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize(("kind", "loads"), [("Adam", False), ("torch.optim.Adam", True)])
def test_only_torchs_adam_loads_the_compiler(kind, loads):
    """Where the second case fails, torch does without the compiler, and our class is needed no longer."""
    done = subprocess.run([sys.executable, "-c", STEP.format(kind=kind)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(loads)
