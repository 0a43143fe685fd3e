"""Every metric against scikit-learn or a plain loop, and its weights against copies of samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from eval import metrics
from eval.metrics import plain

seeds = st.integers(0, 2**32 - 1)


def drawn(seed, ties):
    """Scores, truths and weights; with `ties` of few different scores."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 60))
    score_N = rng.integers(0, 5, n) / 4 if ties else rng.normal(size=n)
    truth_N = (rng.random(n) < 0.4).astype(np.int64)
    truth_N[:2] = 0, 1
    weight_N = rng.integers(0, 4, n)
    weight_N[:2] = 1
    return score_N, truth_N, weight_N


@given(seeds, st.booleans())
def test_roc_auc_is_scikit_learns(seed, ties):
    score_N, truth_N, weight_N = drawn(seed, ties)
    value = metrics.roc_auc(score_N, truth_N == 1)
    assert plain(value, len(score_N)) == pytest.approx(sk.roc_auc_score(truth_N, score_N))
    expected = sk.roc_auc_score(truth_N, score_N, sample_weight=weight_N)
    assert value(weight_N) == pytest.approx(expected)


@given(seeds, st.booleans())
def test_average_precision_is_scikit_learns(seed, ties):
    score_N, truth_N, weight_N = drawn(seed, ties)
    value = metrics.average_precision(score_N, truth_N)
    assert plain(value, len(score_N)) == pytest.approx(sk.average_precision_score(truth_N, score_N))
    expected = sk.average_precision_score(truth_N, score_N, sample_weight=weight_N)
    assert value(weight_N) == pytest.approx(expected)


def eleven_points(score_N, truth_N):
    """VOC 2007's definition, recall by recall over scikit-learn's curve."""
    precision_T, recall_T, _ = sk.precision_recall_curve(truth_N, score_N)
    precision_T, recall_T = precision_T[:-1], recall_T[:-1]  # its last point is made up
    levels = [tenth / 10 for tenth in range(11)]
    return np.mean([precision_T[recall_T >= level - 1e-12].max() for level in levels])


@given(seeds, st.booleans())
def test_eleven_points_are_vocs(seed, ties):
    score_N, truth_N, weight_N = drawn(seed, ties)
    value = metrics.average_precision(score_N, truth_N, eleven_points=True)
    assert plain(value, len(score_N)) == pytest.approx(eleven_points(score_N, truth_N))
    copies = np.repeat(np.arange(len(score_N)), weight_N)
    assert value(weight_N) == pytest.approx(eleven_points(score_N[copies], truth_N[copies]))


def test_eleven_points_worked_example():
    """Shown, not, shown: precision 1 up to a recall of a half, two thirds beyond it."""
    value = metrics.average_precision(np.array([3.0, 2, 1]), np.array([1, 0, 1]), True)
    assert plain(value, 3) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


def test_what_is_not_judged_is_left_out():
    score_N, truth_N = np.array([4.0, 3, 2, 1]), np.array([-1, 1, -1, 0])
    assert plain(metrics.average_precision(score_N, truth_N), 4) == 1.0
    assert plain(metrics.average_precision(score_N, np.where(truth_N < 0, 0, truth_N)), 4) == 0.5


def test_mean_average_precision_leaves_out_classes_that_are_on_no_image():
    score_NC = np.array([[2.0, 1, 5], [1, 2, 6]])
    truth_NC = np.array([[1, 1, 0], [0, 0, 0]])
    assert plain(metrics.mean_average_precision(score_NC, truth_NC), 2) == (1 + 0.5) / 2
    assert np.isnan(plain(metrics.mean_average_precision(score_NC, 0 * truth_NC), 2))
    assert np.isnan(plain(metrics.roc_auc(score_NC[:, 0], truth_NC[:, 2] == 1), 2))


@given(seeds)
def test_accuracies_are_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(1, 60)), int(rng.integers(2, 7))
    label_N, said_N = rng.integers(0, classes, (2, n))
    weight_N = rng.integers(0, 3, n)
    weight_N[0] = 1
    hit_N = label_N == said_N
    assert metrics.mean(hit_N)(weight_N) == pytest.approx(
        sk.accuracy_score(label_N, said_N, sample_weight=weight_N)
    )
    there = weight_N > 0
    expected = sk.recall_score(label_N[there], said_N[there], sample_weight=weight_N[there],
                               labels=np.unique(label_N[there]), average="macro",
                               zero_division=0)  # fmt: skip
    assert metrics.mean_per_class(hit_N, label_N)(weight_N) == pytest.approx(expected)


def test_softmax_of_large_numbers():
    share_NC = metrics.softmax(np.array([[1000.0, 1000, -1000]], np.float32))
    assert share_NC.tolist() == [[0.5, 0.5, 0.0]]
