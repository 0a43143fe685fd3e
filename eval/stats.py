"""95% intervals and paired tests. All are deterministic: the bootstrap has a seed of its own.

wilson             proportions of independent samples (top-1, top-5, one query per image)
mean_of_classes    mean over classes of the accuracy in each class
bootstrap          any other number; samples that come in clusters (five captions of one image,
                   frames of one video) are drawn in clusters
mean_of_sets       average of a suite whose sets are given
t_interval         average of a suite whose sets are a sample of sets, or of seeds
mcnemar            whether two models differ in hits on the same samples
paired_bootstrap   difference of any number between two models on the same samples

Shapes: N samples, M samples in clusters, C classes or clusters, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from scipy.stats import t as student

from eval.metrics import Weighted, plain

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


def bootstrap(value: Weighted, cluster_N: NDArray[np.int64], resamples: int, seed: int) -> Interval:
    """Percentile interval of a number when clusters of samples are drawn again.

    Captions of one image succeed and fail together, so the image is what is drawn. A number of
    exactly 0 or 1 in every resample would be a claim of certainty: Wilson's interval of as many
    samples as there are clusters takes its place.

    Args:
        cluster_N: the cluster of each sample, any integers; all different: samples are drawn.
    """
    _, dense_N = np.unique(cluster_N, return_inverse=True)
    clusters = int(dense_N.max()) + 1
    values_R = np.array([value(w) for w in _draws(dense_N, clusters, resamples, seed)])
    values_R = values_R[np.isfinite(values_R)]
    if len(values_R) and (values_R == values_R[0]).all() and values_R[0] in (0.0, 1.0):
        return wilson(clusters if values_R[0] else 0, clusters)._replace(
            method="wilson over clusters"
        )
    low, high = np.quantile(values_R, (0.025, 0.975))
    method = "bootstrap" if clusters == len(cluster_N) else "cluster bootstrap"
    return Interval(float(low), float(high), method)


def _draws(
    dense_N: NDArray[np.int64], clusters: int, resamples: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """How often each sample is drawn, for each resample."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        times_C = np.bincount(rng.integers(0, clusters, clusters), minlength=clusters)
        yield times_C[dense_N]


def mean_of_sets(values: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """Interval of the mean of independent numbers, from their own (Zou, Huang and Zhang 2009).

    It is of this suite: what other images of the same sets would give, not what other sets
    would.
    """
    below = math.sqrt(sum((v - i.low) ** 2 for v, i in zip(values, intervals, strict=True)))
    above = math.sqrt(sum((i.high - v) ** 2 for v, i in zip(values, intervals, strict=True)))
    mean, n = math.fsum(values) / len(values), len(values)
    return Interval(mean - below / n, mean + above / n, "intervals of the sets, combined")


def t_interval(value_S: NDArray[np.float64]) -> Interval:
    """Student's interval of a mean: of sets drawn at random, or of training seeds.

    Raises:
        ValueError: fewer than two values.
    """
    if len(value_S) < 2:
        raise ValueError("one value has no spread")
    error = float(value_S.std(ddof=1)) / math.sqrt(len(value_S))
    half = float(student.ppf(0.975, len(value_S) - 1)) * error
    mean = float(value_S.mean())
    return Interval(mean - half, mean + half, "t")


class Paired(NamedTuple):
    """Second model minus first on the same samples."""

    difference: float
    interval: Interval
    p: float


def mcnemar(first_N: NDArray[np.bool_], second_N: NDArray[np.bool_]) -> float:
    """Exact two-sided p value that two models hit equally often (McNemar 1947).

    Only samples that one of them hits and the other misses count: under no difference each is
    a fair coin.
    """
    only_first = int((first_N & ~second_N).sum())
    only_second = int((second_N & ~first_N).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def paired_bootstrap(
    first: Weighted, second: Weighted, cluster_N: NDArray[np.int64], resamples: int, seed: int
) -> Paired:
    """Difference of a number between two models, the same samples being drawn for both.

    The p value is two-sided, twice the share of resamples on the other side of no difference
    (ties counting half), and at least 2 / resamples.
    """
    _, dense_N = np.unique(cluster_N, return_inverse=True)
    clusters = int(dense_N.max()) + 1
    draws = _draws(dense_N, clusters, resamples, seed)
    differences_R = np.array([second(w) - first(w) for w in draws])
    differences_R = differences_R[np.isfinite(differences_R)]
    low, high = np.quantile(differences_R, (0.025, 0.975))
    below = (differences_R < 0).mean() + (differences_R == 0).mean() / 2
    p = min(1.0, max(2 * min(below, 1 - below), 2 / resamples))
    n = len(dense_N)
    interval = Interval(float(low), float(high), "paired bootstrap")
    return Paired(plain(second, n) - plain(first, n), interval, p)
