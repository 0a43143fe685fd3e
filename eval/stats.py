"""95% intervals. All are deterministic: the bootstrap has a seed of its own.

wilson             proportions of independent samples (top-1, top-5, one query per image)
cluster_bootstrap  proportions of samples that come in clusters (five captions of one image)
mean_of_classes    mean over classes of the accuracy in each class
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054  # 97.5% point of the normal distribution


class Interval(NamedTuple):
    """Both ends of an interval and the method that made it."""

    low: float
    high: float
    method: str


def wilson(successes: int, n: int) -> Interval:
    """Wilson's 95% score interval of a proportion (Wilson 1927), within [0, 1].

    Unlike the normal approximation it stays honest near 0 and 1 and for few samples.

    Raises:
        ValueError: unless 0 <= successes <= n and n >= 1.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes of {n} samples is not a proportion")
    share = successes / n
    centre = share + Z_95**2 / (2 * n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n))
    scale = 1 + Z_95**2 / n
    # At the ends the formula gives exactly 0 and 1; rounding must not move them inside.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return Interval(low, high, "wilson")


def cluster_bootstrap(
    hit_M: NDArray[np.bool_], cluster_M: NDArray[np.int64], resamples: int, seed: int
) -> Interval:
    """Percentile interval of the share of hits when whole clusters are drawn again.

    Captions of one image succeed and fail together, so the image is what is drawn. When all
    samples hit or all miss, every resample agrees and the bootstrap would claim certainty:
    Wilson's interval with one sample per cluster takes its place.

    Args:
        cluster_M: the cluster of each sample, any integers.
    """
    _, dense_M = np.unique(cluster_M, return_inverse=True)
    clusters = int(dense_M.max()) + 1
    if hit_M.all() or not hit_M.any():
        hits = clusters if hit_M[0] else 0
        return wilson(hits, clusters)._replace(method="wilson over clusters")
    sum_C = np.bincount(dense_M, weights=hit_M)
    count_C = np.bincount(dense_M)
    rng = np.random.default_rng(seed)
    means_R = np.empty(resamples)
    for i in range(resamples):
        drawn_C = rng.integers(0, clusters, clusters)
        means_R[i] = sum_C[drawn_C].sum() / count_C[drawn_C].sum()
    low, high = np.quantile(means_R, (0.025, 0.975))
    return Interval(float(low), float(high), "cluster bootstrap")


def mean_of_classes(hit_N: NDArray[np.bool_], label_N: NDArray[np.int64]) -> Interval:
    """Interval of the mean over classes of the accuracy in each class.

    Wilson's intervals of the classes, combined as independent errors are: the square root of the
    sum of the squared distances from each end to its class' accuracy, over the number of classes
    (Zou, Huang and Zhang 2009, linear functions of proportions). A bootstrap within classes
    would claim certainty wherever a class is all hits or all misses.
    """
    _, dense_N, count_C = np.unique(label_N, return_inverse=True, return_counts=True)
    hits_C = np.bincount(dense_N, weights=hit_N)
    below = above = 0.0
    for hits, count in zip(hits_C.tolist(), count_C.tolist(), strict=True):
        low, high, _ = wilson(int(hits), count)
        below += (hits / count - low) ** 2
        above += (high - hits / count) ** 2
    mean, classes = float((hits_C / count_C).mean()), len(count_C)
    return Interval(
        mean - math.sqrt(below) / classes, mean + math.sqrt(above) / classes, "wilson of classes"
    )
