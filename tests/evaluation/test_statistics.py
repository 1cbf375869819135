"""The statistics agree with what is known: scipy's trimmed mean, coverage of the interval, textbook cases."""

import math

import numpy as np
import pytest
from scipy import stats

from marl_tune.evaluation.statistics import bootstrap_ci, iqm, separation, wilson_interval


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 100, 101])
def test_iqm_is_the_mean_without_the_outer_quarters(n):
    samples = np.random.default_rng(n).normal(size=n)
    assert iqm(samples) == pytest.approx(stats.trim_mean(samples, 0.25))


def test_iqm_works_along_any_axis_and_changes_nothing():
    samples = np.random.default_rng(0).normal(size=(3, 9, 2))
    before = samples.copy()
    assert iqm(samples, axis=1).shape == (3, 2)
    assert iqm(samples, axis=1)[2, 1] == pytest.approx(iqm(samples[2, :, 1]))
    np.testing.assert_array_equal(samples, before)


def test_iqm_does_not_feel_an_outlier():
    assert iqm([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 1e9]) == pytest.approx(4.5)


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf]])
def test_samples_without_a_mean_are_refused(samples):
    with pytest.raises(ValueError, match="samples must"):
        iqm(samples)
    with pytest.raises(ValueError, match="samples must"):
        bootstrap_ci(samples)


def test_the_interval_holds_the_true_value_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(400):
        low, high = bootstrap_ci(rng.normal(size=60), confidence=0.9, resamples=400, seed=trial)
        hits += low <= 0.0 <= high
    assert 0.85 < hits / 400 < 0.94


def test_the_interval_agrees_with_scipys():
    samples = np.random.default_rng(2).gamma(2.0, size=100)
    ours = bootstrap_ci(samples, resamples=5000)
    theirs = stats.bootstrap(
        (samples,), iqm, n_resamples=5000, method="percentile", vectorized=True, rng=0
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_the_same_seed_gives_the_same_interval_also_seed_0():
    samples = np.random.default_rng(3).normal(size=30)
    assert bootstrap_ci(samples, seed=0) == bootstrap_ci(samples, seed=0)
    assert bootstrap_ci(samples, seed=0) != bootstrap_ci(samples, seed=1)


def test_pieces_do_not_change_the_number_of_resamples(monkeypatch):
    monkeypatch.setattr("marl_tune.evaluation.statistics.RESAMPLED_AT_ONCE", 70)
    calls = []
    real = iqm
    monkeypatch.setattr(
        "marl_tune.evaluation.statistics.iqm", lambda values: calls.append(values.shape) or real(values)
    )
    bootstrap_ci(np.arange(30.0), resamples=25)
    assert calls == [(2, 30)] * 12 + [(1, 30)]


def test_one_sample_and_equal_samples_have_an_interval_of_no_width():
    assert bootstrap_ci([2.0]) == (2.0, 2.0)
    assert bootstrap_ci([3.0] * 10) == (3.0, 3.0)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1, 95])
def test_a_confidence_outside_its_range_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence must"):
        bootstrap_ci([1.0, 2.0], confidence=confidence)


def test_far_samples_are_separated_and_equal_ones_are_not():
    rng = np.random.default_rng(4)
    a, b = rng.normal(1.0, 1.0, 100), rng.normal(0.0, 1.0, 100)
    far = separation(a, b)
    assert far.separated
    assert far.ci[0] <= far.difference <= far.ci[1]
    assert far.difference == pytest.approx(iqm(a) - iqm(b))
    assert separation(b, a).normalised < -3 < 3 < far.normalised
    assert not separation(b, rng.normal(0.0, 1.0, 100)).separated


def test_pairs_take_out_the_noise_that_both_share():
    rng = np.random.default_rng(5)
    worlds = rng.normal(0.0, 5.0, 100)  # an easy or a hard seed
    a, b = worlds + 0.5 + rng.normal(0, 0.3, 100), worlds + rng.normal(0, 0.3, 100)
    assert separation(a, b, paired=True).separated
    assert not separation(a, b, paired=False).separated
    with pytest.raises(ValueError, match="equally many"):
        separation(a, b[:50], paired=True)


def test_samples_that_do_not_vary():
    same, more = separation([1.0] * 5, [1.0] * 5), separation([2.0] * 5, [1.0] * 5)
    assert (same.normalised, same.separated) == (0.0, False)
    assert (more.normalised, more.separated) == (math.inf, True)


def test_false_alarms_are_as_rare_as_the_confidence_says():
    rng = np.random.default_rng(6)
    alarms = sum(
        separation(rng.normal(size=50), rng.normal(size=50), resamples=300, seed=trial).separated
        for trial in range(300)
    )
    assert alarms / 300 < 0.10


def test_wilsons_interval_is_scipys_and_holds_the_share_itself():
    for trials in range(1, 120):
        for successes in {0, 1, trials // 3, trials}:
            low, high = wilson_interval(successes, trials)
            expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
            assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
            assert low <= successes / trials <= high, "rounding left it out"
