"""A running mean and deviation, which normalise value targets of unknown size to mean 0 and deviation 1."""

import torch
from torch import Tensor, nn

DECAY = 0.99999  # per batch, of both running means
LEAST_VARIANCE = 1e-2
# Both are those of https://github.com/marlbenchmark/on-policy (onpolicy/utils/valuenorm.py).


class RunningMoments(nn.Module):
    """Debiased exponential means of values and of their squares, by which Yu et al. 2022
    (https://arxiv.org/abs/2103.01955, section 5.1) normalise values. Both are saved with the weights.

    Differs from their code: the sums are float64, because a mean square minus a squared mean loses digits; before the
    first update the deviation is 1, not the root of the least variance.
    """

    mean_sum: Tensor
    square_sum: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean_sum", "square_sum", "weight"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    @property
    def mean(self) -> Tensor:
        """A scalar; 0 before the first update."""
        return self.mean_sum / torch.where(self.weight > 0, self.weight, 1.0)

    @property
    def deviation(self) -> Tensor:
        """A scalar, at least the root of LEAST_VARIANCE; 1 before the first update."""
        weight = torch.where(self.weight > 0, self.weight, 1.0)
        variance = (self.square_sum / weight - self.mean.square()).clamp_min(LEAST_VARIANCE)
        return torch.where(self.weight > 0, variance.sqrt(), 1.0)

    @torch.no_grad()
    def update(self, mean: Tensor, mean_square: Tensor) -> None:
        """Updates the moments with the mean of a batch's values and the mean of their squares, both scalars."""
        for total, value in ((self.mean_sum, mean), (self.square_sum, mean_square), (self.weight, 1.0)):
            total.mul_(DECAY).add_((1.0 - DECAY) * value)

    def normalise(self, values: Tensor) -> Tensor:
        """(values - mean) / deviation, of any shape."""
        return (values - self.mean.to(values.dtype)) / self.deviation.to(values.dtype)

    def denormalise(self, values: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return values * self.deviation.to(values.dtype) + self.mean.to(values.dtype)
