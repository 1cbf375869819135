"""Differentiable Hebbian plasticity: a layer whose weights change during an episode."""

import math

import torch
from torch import Tensor, nn

from marl_tune.modules.parts.layers import dense
from marl_tune.modules.parts.protocols import Memory

# Standard deviation of the initial plasticity coefficients. With 0.01, as in the authors' code, a task to recall an
# observation of 12 steps ago took twice as many updates.
ALPHA_DEVIATION = 0.5


class PlasticLayer(Memory):
    """A memory of fast weights: y = tanh((W + alpha * H) x + b). The trace H changes in each step, as a function of x,
    y.

    H is zero at the start of an episode. Each agent has its own H, and it is the layer's only state. Gradient descent
    trains W, alpha, b and the rate eta, through all steps of a training sequence (Miconi, Stanley, Clune:
    Differentiable plasticity, 2018, https://arxiv.org/abs/1804.02464; a learnt rate of change also in Miconi et al.:
    Backpropamine, 2019, https://arxiv.org/abs/2002.10585).

    Differs from the papers: a sigmoid keeps eta in (0, 1); the layer is feed-forward, so y is not the next x; a
    projection reduces the features to the layer's size, so that H stays small; the output is the features, concatenated
    with y.

    Args:
        in_dim: size of the features that come in.
        plastic_dim: size d of x and y; H is (d, d) for each agent.
        rule: `oja` or `decay`, see `next_trace`.
        trace_rate: eta at the start, in (0, 1).
    """

    def __init__(self, in_dim: int, plastic_dim: int, rule: str, trace_rate: float):
        super().__init__()
        self.plastic_dim, self.rule, self.out_dim = plastic_dim, rule, in_dim + plastic_dim
        self.project = dense(in_dim, plastic_dim)
        self.fixed = dense(plastic_dim, plastic_dim)
        self.alpha = nn.Parameter(ALPHA_DEVIATION * torch.randn(plastic_dim, plastic_dim))
        self.rate_logit = nn.Parameter(torch.tensor(math.log(trace_rate / (1.0 - trace_rate))))

    @property
    def trace_rate(self) -> Tensor:
        """eta, a scalar in (0, 1)."""
        return torch.sigmoid(self.rate_logit)

    def initial_state(self) -> dict[str, Tensor]:
        """The trace of one agent at the start of an episode."""
        return {"trace": torch.zeros(self.plastic_dim, self.plastic_dim)}

    def forward(self, features: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, T, in_dim) and the trace (B, d, d) before the first step -> (B, T, out_dim) and the trace after the
        last."""
        x, alpha, eta, trace = torch.tanh(self.project(features)), self.alpha, self.trace_rate, state["trace"]
        fixed = self.fixed(x)  # W x + b needs no trace, so it is computed for all steps at once
        outputs = []
        for x_t, fixed_t in zip(x.unbind(1), fixed.unbind(1), strict=True):  # (B, d) each
            y_t = torch.tanh(fixed_t + torch.bmm(alpha * trace, x_t.unsqueeze(2)).squeeze(2))
            trace = next_trace(trace, x_t, y_t, eta, self.rule)
            outputs.append(y_t)
        return torch.cat([features, torch.stack(outputs, 1)], -1), {"trace": trace}


def next_trace(trace: Tensor, x: Tensor, y: Tensor, eta: Tensor, rule: str) -> Tensor:
    """H after a step in which x (B, in) became y (B, out); H is (B, out, in).

    - decay: H <- (1 - eta) H + eta y x^T (Miconi et al. 2018, eq. 2)
    - oja: H <- H + eta y (x - y H), which forgets only where y is active (Miconi et al. 2018, eq. 3, after Oja:
      Simplified neuron model as a principal component analyzer, 1982, https://doi.org/10.1007/BF00275687)
    """
    kept = 1.0 - eta * y.square().unsqueeze(2) if rule == "oja" else 1.0 - eta
    return torch.baddbmm(kept * trace, (eta * y).unsqueeze(2), x.unsqueeze(1))
