"""Straight lines through points, with what a bootstrap over the points says of them.

Shapes: N points, R resamples, G places where the line is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import linregress

from eval.stats import Interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """Ordinary least squares of y on x.

    Attributes:
        r, p: Pearson's correlation and its two-sided p value.
        slope_interval, r_interval: 95%, percentiles of the bootstrap over points.
        drawn_R2: slope and intercept of each resample.
    """

    slope: float
    intercept: float
    r: float
    p: float
    n: int
    slope_interval: Interval
    r_interval: Interval
    drawn_R2: Floats

    def at(self, x_G: Floats) -> Floats:
        """The line."""
        y_G: Floats = self.slope * x_G + self.intercept
        return y_G

    def band(self, x_G: Floats) -> tuple[Floats, Floats]:
        """Both edges of the pointwise 95% band of the line."""
        y_RG = self.drawn_R2[:, :1] * x_G + self.drawn_R2[:, 1:]
        low_G, high_G = np.quantile(y_RG, (0.025, 0.975), axis=0)
        return low_G, high_G


def line(x_N: Floats, y_N: Floats, resamples: int = 2000, seed: int = 0) -> Line:
    """Fit a line; resamples in which all x are equal are drawn again.

    Raises:
        ValueError: fewer than three points, or all x equal.
    """
    if len(x_N) < 3 or np.ptp(x_N) == 0:
        raise ValueError("a line needs at least three points, not all with the same x")
    fit = linregress(x_N, y_N)
    rng = np.random.default_rng(seed)
    drawn_R2 = np.empty((resamples, 2))
    r_R = np.empty(resamples)
    for i in range(resamples):
        chosen_N = rng.integers(0, len(x_N), len(x_N))
        while np.ptp(x_N[chosen_N]) == 0:
            chosen_N = rng.integers(0, len(x_N), len(x_N))
        drawn_R2[i], r_R[i] = _least_squares(x_N[chosen_N], y_N[chosen_N])
    return Line(
        float(fit.slope),
        float(fit.intercept),
        float(fit.rvalue),
        float(fit.pvalue),
        len(x_N),
        _percentiles(drawn_R2[:, 0]),
        _percentiles(r_R),
        drawn_R2,
    )


def logit(share_N: Floats, n: int | None = None) -> Floats:
    """log p / (1 - p), as accuracies are compared across shifts (Taori et al. 2020).

    Args:
        n: samples behind the shares; then 0 and 1 are read as half a sample away from it.

    Raises:
        ValueError: a share of 0 or 1, and no `n`.
    """
    if n is not None:
        share_N = share_N.clip(0.5 / n, 1 - 0.5 / n)
    if ((share_N <= 0) | (share_N >= 1)).any():
        raise ValueError("a share of 0 or 1 has no logit")
    odds_N: Floats = np.log(share_N / (1 - share_N))
    return odds_N


def expit(logit_N: Floats) -> Floats:
    """The share that has this logit."""
    share_N: Floats = 1 / (1 + np.exp(-logit_N))
    return share_N


def _least_squares(x_N: Floats, y_N: Floats) -> tuple[tuple[float, float], float]:
    dx_N, dy_N = x_N - x_N.mean(), y_N - y_N.mean()
    slope = float(dx_N @ dy_N / (dx_N @ dx_N))
    length = float(np.sqrt((dx_N @ dx_N) * (dy_N @ dy_N)))
    r = float(dx_N @ dy_N / length) if length else 0.0
    return (slope, float(y_N.mean() - slope * x_N.mean())), r


def _percentiles(value_R: Floats) -> Interval:
    low, high = np.quantile(value_R, (0.025, 0.975))
    return Interval(float(low), float(high), "bootstrap over points")
