"""A running deviation, by which rewards of unknown size are divided to make them about 1."""

import torch
from torch import Tensor, nn

SMALLEST = 1e-8  # lower bound of the deviation


class RunningDeviation(nn.Module):
    """Root of the mean square over all values so far. Its sums are saved with the weights.

    Burda et al. 2018 (https://arxiv.org/abs/1810.12894, section 2.4) also divide by a running deviation. Here it is the
    deviation from 0, not from the mean: 0 is the reward of a perfect prediction, and equal values are not divided by
    nearly 0.
    """

    count: Tensor
    mean_square: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean_square", torch.zeros((), dtype=torch.float64))

    @property
    def deviation(self) -> Tensor:
        """A scalar, at least SMALLEST."""
        return self.mean_square.sqrt().clamp_min(SMALLEST)

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Updates the deviation with a batch of values of any shape."""
        if values.numel() == 0:
            return
        self.count += values.numel()
        self.mean_square += (values.double().square().mean() - self.mean_square) * values.numel() / self.count

    def forward(self, values: Tensor) -> Tensor:
        """The values divided by the deviation."""
        return values / self.deviation.to(values.dtype)
