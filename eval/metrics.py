"""The metrics of the paper's suite (table 9), as functions of how often each sample counts.

A metric is made from per-sample predictions once, with all sorting done, and then asked for its
value under any weights: ones for the number itself, the draws of a bootstrap for its interval.
All values are shares of 1.

Shapes: N samples, C classes, T different scores.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]
# How often each sample counts: whole numbers in a bootstrap; a metric may weigh samples besides.
Weights = NDArray[np.int64] | NDArray[np.float64]
# The value of a metric when sample i counts weight_N[i] times; NaN where it isn't defined.
Weighted = Callable[[Weights], float]

TOP_1, TOP_5, PER_CLASS = "top-1", "top-5", "mean per class"
TOP_1_5 = "mean of top-1 and top-5"
ROC_AUC = "ROC AUC"
MAP_11, MAP = "11-point mAP", "mAP"
MEAN_R1 = "mean R@1"


def plain(metric: Weighted, n: int) -> float:
    """The number itself: every one of n samples counts once."""
    return metric(np.ones(n, np.int64))


def mean(value_N: NDArray[np.generic]) -> Weighted:
    """The mean of a number for each sample, such as a hit."""
    plain_N = value_N.astype(np.float64)
    return lambda weight_N: float(plain_N @ weight_N / weight_N.sum())


def mean_per_class(hit_N: NDArray[np.bool_], label_N: NDArray[np.int64]) -> Weighted:
    """Mean over the classes that have samples of the accuracy in each class."""

    def value(weight_N: Weights) -> float:
        total_C = np.bincount(label_N, weights=weight_N)
        right_C = np.bincount(label_N, weights=weight_N * hit_N)
        there_C = total_C > 0
        return float((right_C[there_C] / total_C[there_C]).mean())

    return value


def roc_auc(score_N: Scores, positive_N: NDArray[np.bool_]) -> Weighted:
    """Chance that a positive sample scores above a negative one, a tie counting half."""
    _, place_N = np.unique(score_N, return_inverse=True)

    def value(weight_N: Weights) -> float:
        up_T = np.bincount(place_N, weights=weight_N * positive_N)
        down_T = np.bincount(place_N, weights=weight_N * ~positive_N)
        pairs = float(up_T.sum() * down_T.sum())
        below_T = np.cumsum(down_T) - down_T
        return float((up_T * (below_T + down_T / 2)).sum() / pairs) if pairs else float("nan")

    return value


def average_precision(
    score_N: Scores, truth_N: NDArray[np.int64], eleven_points: bool = False
) -> Weighted:
    """Area under precision over recall of one class; NaN where no sample shows it.

    Samples of equal score enter together. With `eleven_points` it is VOC 2007's: the mean over
    recalls of 0, 0.1 ... 1 of the best precision at that recall or more (Everingham et al. 2010,
    section 4.2); otherwise every step of recall is weighed by its size, as in scikit-learn.

    Args:
        truth_N: 1 shown, 0 not shown, -1 not judged and left out.
    """
    order = np.argsort(-score_N, kind="stable")
    order = order[truth_N[order] >= 0]
    shown_N, sorted_N = truth_N[order] == 1, score_N[order]
    last_T = np.flatnonzero(np.append(sorted_N[1:] != sorted_N[:-1], True))  # of equal scores

    def value(weight_N: Weights) -> float:
        weight_N = weight_N[order]
        all_T = np.cumsum(weight_N)[last_T]
        shown_T = np.cumsum(weight_N * shown_N)[last_T]
        shown_T, all_T = shown_T[all_T > 0], all_T[all_T > 0]
        if not len(shown_T) or not shown_T[-1]:
            return float("nan")
        precision_T, recall_T = shown_T / all_T, shown_T / shown_T[-1]
        if not eleven_points:
            return float((np.diff(recall_T, prepend=0) * precision_T).sum())
        best_T = np.maximum.accumulate(precision_T[::-1])[::-1]
        # Rounding must not make 3 of 10 less than a recall of 0.3.
        first = np.searchsorted(recall_T, np.linspace(0, 1, 11) - 1e-12)
        return float(best_T[first].mean())

    return value


def mean_average_precision(
    score_NC: Scores, truth_NC: NDArray[np.int64], eleven_points: bool = False
) -> Weighted:
    """Mean of the average precision over the classes that some sample shows."""
    each_C = [
        average_precision(score_NC[:, c], truth_NC[:, c], eleven_points)
        for c in range(score_NC.shape[1])
    ]

    def value(weight_N: Weights) -> float:
        values = [one for one in (each(weight_N) for each in each_C) if not np.isnan(one)]
        return float(np.mean(values)) if values else float("nan")

    return value


def softmax(logit_NC: Scores) -> NDArray[np.float64]:
    """Shares of 1 over the last axis, in double precision."""
    shifted_NC = logit_NC.astype(np.float64) - logit_NC.max(axis=-1, keepdims=True)
    share_NC = np.exp(shifted_NC)
    shares: NDArray[np.float64] = share_NC / share_NC.sum(axis=-1, keepdims=True)
    return shares
