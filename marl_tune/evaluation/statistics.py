"""Statistics of few noisy returns: the interquartile mean, its bootstrap interval, and whether two policies differ.

Follows Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (https://arxiv.org/abs/2108.13264).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLED_AT_ONCE = 4_000_000  # resampled values in memory at once: 32 MB


@dataclass(frozen=True)
class Separation:
    """How far two policies' scores lie apart, compared with what chance can explain.

    >>> apart = separation([5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0])
    >>> apart.difference, apart.separated
    (4.0, True)
    """

    difference: float  # IQM of the first minus IQM of the second, in the unit of the samples
    ci: tuple[float, float]  # bootstrap interval of that difference
    normalised: float  # difference / its bootstrap standard error; infinite if only that error is 0
    separated: bool  # 0 lies outside the interval


def iqm(samples: ArrayLike, axis: int = -1) -> NDArray[np.float64]:
    """Interquartile mean: the mean without the lowest and the highest quarter of the values.

    Args:
        samples: (..., n, ...) finite numbers. Of n values along `axis`, floor(n / 4) are dropped at each end.
        axis: along which the mean is taken.

    Returns:
        `samples` without `axis`.

    Raises:
        ValueError: no samples, or one that is not finite.
    """
    values = np.sort(np.moveaxis(_checked(samples), axis, -1), axis=-1)
    n = values.shape[-1]
    cut = n // 4
    return values[..., cut : n - cut].mean(axis=-1)


def bootstrap_ci(
    samples: ArrayLike, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the interquartile mean (Efron 1979).

    Args:
        samples: (n,) finite numbers, such as the returns of n episodes.
        confidence: share of such intervals that contain the true value, (0, 1).
        resamples: samples of size n drawn with replacement, at least 1.
        seed: of the resampling. The same seed gives the same interval.

    Raises:
        ValueError: no samples, one that is not finite, or `confidence` outside (0, 1).
    """
    values = _checked(samples)
    return _interval(_resampled(values, resamples, np.random.default_rng(seed)), confidence)


def bootstrap_mean_ci(
    samples: ArrayLike, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """As `bootstrap_ci`, but of the plain mean. It suits results of games (0, 0.5, 1), whose IQM is too coarse.

    Raises:
        ValueError: as `bootstrap_ci`.
    """
    return _interval(resampled_means(samples, resamples, np.random.default_rng(seed)), confidence)


def resampled_means(samples: ArrayLike, resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(resamples,) means of samples drawn with replacement.

    Raises:
        ValueError: no samples, or one that is not finite.
    """
    values = _checked(samples)
    return values[rng.integers(values.size, size=(resamples, values.size))].mean(axis=1)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953); valid for shares of 0 and 1.

    Args:
        successes: from 0 to `trials`.
        trials: at least 1.
        confidence: share of such intervals that contain the true value, (0, 1).
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, shrink = successes / trials, 1 + z * z / trials
    centre = share + z * z / (2 * trials)
    margin = z * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low, high = float((centre - margin) / shrink), float((centre + margin) / shrink)
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # rounding could exclude shares of 0 and 1


def separation(
    first: ArrayLike,
    second: ArrayLike,
    paired: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Separation:
    """Whether the interquartile means of two samples differ by more than chance, by a bootstrap of their difference.

    Args:
        first: (n,) finite numbers.
        second: (m,) finite numbers.
        paired: entry i of both was measured on the same seed, so n = m. Resampling keeps the pairs together, which
            removes the noise that both share.
        confidence, resamples, seed: as in `bootstrap_ci`.

    Raises:
        ValueError: as `bootstrap_ci`, or `paired` with n other than m.
    """
    a, b = _checked(first), _checked(second)
    if paired and a.size != b.size:
        raise ValueError(f"paired samples must be equally many, got {a.size} and {b.size}")
    first_rng = np.random.default_rng(seed)
    second_rng = np.random.default_rng(seed) if paired else first_rng.spawn(1)[0]  # the same draws keep the pairs
    differences = _resampled(a, resamples, first_rng) - _resampled(b, resamples, second_rng)
    difference = float(iqm(a) - iqm(b))
    low, high = _interval(differences, confidence)
    error = float(differences.std())
    normalised = difference / error if error > 0 else float(np.sign(difference)) * np.inf if difference else 0.0
    return Separation(difference, (low, high), normalised, low > 0 or high < 0)


def _checked(samples: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(samples, dtype=np.float64)
    if values.size == 0:
        raise ValueError("samples must hold at least one number")
    if not np.isfinite(values).all():
        raise ValueError(f"samples must be finite, got {values[~np.isfinite(values)][0]}")
    return values


def _resampled(values: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(resamples,) interquartile means of samples drawn from `values` with replacement; in pieces that fit memory."""
    n = values.size
    rows = max(1, RESAMPLED_AT_ONCE // n)
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate([iqm(values[rng.integers(n, size=(size, n))]) for size in sizes])


def _interval(scores: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be above 0 and below 1, got {confidence}")
    tail = (1 - confidence) / 2
    low, high = np.quantile(scores, [tail, 1 - tail])
    return float(low), float(high)
