"""Lines against scipy, and what their bootstrap covers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import linregress

from eval import fits


def points(n, seed, slope=1.3):
    rng = np.random.default_rng(seed)
    x_N = rng.normal(size=n)
    return x_N, slope * x_N + 0.5 + 0.3 * rng.normal(size=n)


def test_a_line_is_scipys():
    x_N, y_N = points(27, 0)
    found, expected = fits.line(x_N, y_N, 100), linregress(x_N, y_N)
    assert found.slope == pytest.approx(expected.slope)
    assert found.intercept == pytest.approx(expected.intercept)
    assert (found.r, found.p) == pytest.approx((expected.rvalue, expected.pvalue))
    assert found.slope_interval.low < found.slope < found.slope_interval.high
    assert found.r_interval.high <= 1


def test_each_resample_is_a_least_squares_fit():
    x_N, y_N = points(9, 1)
    drawn = np.random.default_rng(4).integers(0, 9, 9)
    expected = linregress(x_N[drawn], y_N[drawn])
    got = fits.line(x_N, y_N, 1, seed=4).drawn_R2[0]
    assert tuple(got) == pytest.approx((expected.slope, expected.intercept))


def test_the_interval_and_the_band_cover_the_truth():
    inside, within = 0, 0
    for seed in range(200):
        found = fits.line(*points(40, seed), resamples=200, seed=seed)
        inside += found.slope_interval.low <= 1.3 <= found.slope_interval.high
        low_G, high_G = found.band(np.array([0.7]))
        within += bool(low_G[0] <= 1.3 * 0.7 + 0.5 <= high_G[0])
    assert 0.88 <= inside / 200 <= 0.99
    assert 0.88 <= within / 200 <= 0.99


@given(st.floats(0.001, 0.999))
def test_logits_are_scipys(share):
    assert fits.logit(np.array([share]))[0] == pytest.approx(logit(share))
    assert fits.expit(np.array([logit(share)]))[0] == pytest.approx(expit(logit(share)))


def test_certainty_has_no_logit_unless_samples_are_counted():
    with pytest.raises(ValueError, match="no logit"):
        fits.logit(np.array([1.0]))
    assert fits.logit(np.array([1.0]), n=50)[0] == pytest.approx(logit(0.99))


@pytest.mark.parametrize("x", [[1.0, 2.0], [1.0, 1.0, 1.0]])
def test_too_little_for_a_line(x):
    with pytest.raises(ValueError, match="three points"):
        fits.line(np.array(x), np.array(x))
