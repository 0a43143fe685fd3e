"""Intervals against their definitions."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from eval.metrics import mean
from eval.stats import (
    Z_95,
    bootstrap,
    mcnemar,
    mean_of_classes,
    mean_of_sets,
    paired_bootstrap,
    t_interval,
    wilson,
)


def cluster_bootstrap(hit_M, cluster_M, resamples, seed):
    return bootstrap(mean(hit_M), cluster_M, resamples, seed)


proportions = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(proportions)
def test_wilson_ends_solve_the_score_equation(proportion):
    """Each end p is where the observed share lies z standard errors of p away."""
    successes, n = proportion
    low, high, _ = wilson(successes, n)
    share = successes / n
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        distance = Z_95 * math.sqrt(end * (1 - end) / n)
        assert abs(abs(share - end) - distance) < 1e-9


@given(proportions)
def test_wilson_is_symmetric(proportion):
    successes, n = proportion
    low, high, _ = wilson(successes, n)
    mirrored = wilson(n - successes, n)
    assert (1 - high, 1 - low) == pytest.approx(mirrored[:2], abs=1e-12)


def test_wilson_worked_example():
    """8 of 10: centre 0.9921 / 1.3841, half-width 0.3135 / 1.3841."""
    low, high, method = wilson(8, 10)
    assert (round(low, 3), round(high, 3), method) == (0.490, 0.943, "wilson")


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_what_is_no_proportion(successes, n):
    with pytest.raises(ValueError, match="not a proportion"):
        wilson(successes, n)


def clusters(rng, count, size, agree):
    """Hits of `count` clusters; with `agree` all samples of a cluster are equal."""
    hit_CS = rng.random((count, 1 if agree else size)) < 0.3
    hit_M = np.broadcast_to(hit_CS, (count, size)).ravel()
    return hit_M, np.repeat(np.arange(count), size)


def test_cluster_bootstrap_matches_the_plain_one():
    """The same draws, made by copying samples of whole clusters into a list."""
    rng = np.random.default_rng(3)
    cluster_M = np.sort(rng.integers(0, 12, 60)) * 7 - 5  # uneven sizes, any integers
    hit_M = rng.random(60) < 0.4
    names = sorted(set(cluster_M.tolist()))
    draws = np.random.default_rng(5)
    means = []
    for _ in range(200):
        drawn = draws.integers(0, len(names), len(names))
        values = [v for i in drawn for v in hit_M[cluster_M == names[i]]]
        means.append(np.mean(values))
    low, high, method = cluster_bootstrap(hit_M, cluster_M, resamples=200, seed=5)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))))
    assert method == "cluster bootstrap"


def test_cluster_bootstrap_is_wide_where_samples_agree():
    """Five equal captions are worth one: the interval is about that of the images."""
    agreeing = cluster_bootstrap(*clusters(np.random.default_rng(0), 400, 5, True), 1000, 0)
    free = cluster_bootstrap(*clusters(np.random.default_rng(0), 400, 5, False), 1000, 0)
    hit_M, _ = clusters(np.random.default_rng(0), 400, 5, True)
    images = wilson(int(hit_M[::5].sum()), 400)
    width, narrow = agreeing.high - agreeing.low, free.high - free.low
    assert width == pytest.approx(images.high - images.low, rel=0.1)
    assert width / narrow == pytest.approx(math.sqrt(5), rel=0.15)


def test_cluster_bootstrap_covers_the_truth():
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(300):
        hit_M, cluster_M = clusters(rng, 80, 5, True)
        low, high, _ = cluster_bootstrap(hit_M, cluster_M, 300, trial)
        inside += low <= 0.3 <= high
    assert 0.90 <= inside / 300 <= 0.985


@pytest.mark.parametrize("hit", [False, True])
def test_cluster_bootstrap_never_claims_certainty(hit):
    hit_M, cluster_M = np.full(50, hit), np.repeat(np.arange(10), 5)
    low, high, method = cluster_bootstrap(hit_M, cluster_M, 100, 0)
    assert (low, high) == wilson(10 * hit, 10)[:2]
    assert high - low > 0.2
    assert method == "wilson over clusters"


def test_mean_of_one_class_is_its_proportion():
    hit_N = np.arange(40) < 9
    assert mean_of_classes(hit_N, np.full(40, 3))[:2] == pytest.approx(wilson(9, 40)[:2])


def test_mean_of_classes_has_the_spread_of_its_classes():
    """With many images the variance is the sum over classes of p(1-p)/n, over C squared."""
    rng = np.random.default_rng(2)
    counts = [3000, 6000, 40_000]
    label_N = np.repeat([4, 7, 9], counts)
    hit_N = rng.random(len(label_N)) < np.repeat([0.2, 0.5, 0.9], counts)
    low, high, _ = mean_of_classes(hit_N, label_N)
    shares = [(hit_N[label_N == c].mean(), int((label_N == c).sum())) for c in (4, 7, 9)]
    sigma = math.sqrt(sum(p * (1 - p) / n for p, n in shares)) / 3
    assert (low + high) / 2 == pytest.approx(np.mean([p for p, _ in shares]), abs=1e-3)
    assert high - low == pytest.approx(2 * Z_95 * sigma, rel=0.01)


def test_mean_of_classes_covers_the_truth_with_few_images():
    """Ten classes of eight images, some of them nearly always right."""
    rng = np.random.default_rng(3)
    truth_C = np.linspace(0.1, 0.99, 10)
    label_N = np.repeat(np.arange(10), 8)
    inside = 0
    for _ in range(400):
        low, high, _ = mean_of_classes(rng.random(80) < truth_C[label_N], label_N)
        inside += low <= truth_C.mean() <= high
    assert 0.93 <= inside / 400 <= 0.995


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=60))
def test_mean_of_classes_is_never_certain_and_never_outside(samples):
    hit_N, label_N = (np.array(column) for column in zip(*samples, strict=True))
    low, high, _ = mean_of_classes(hit_N, label_N)
    mean = np.mean([hit_N[label_N == c].mean() for c in set(label_N.tolist())])
    assert -1e-12 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1 + 1e-12
    assert high - low > 0.01


def test_intervals_are_the_same_every_time():
    hit_M, cluster_M = clusters(np.random.default_rng(8), 50, 5, False)
    assert cluster_bootstrap(hit_M, cluster_M, 100, 4) == cluster_bootstrap(
        hit_M, cluster_M, 100, 4
    )
    assert cluster_bootstrap(hit_M, cluster_M, 100, 4) != cluster_bootstrap(
        hit_M, cluster_M, 100, 5
    )


@given(proportions)
def test_wilson_is_scipys(proportion):
    expected = scipy.stats.binomtest(*proportion).proportion_ci(0.95, "wilson")
    assert wilson(*proportion)[:2] == pytest.approx(tuple(expected), abs=1e-9)


def test_bootstrap_of_a_mean_is_as_wide_as_scipys():
    value_N = np.random.default_rng(0).normal(size=200)
    ours = bootstrap(mean(value_N), np.arange(200), 4000, 0)
    theirs = scipy.stats.bootstrap(
        (value_N,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert ours.method == "bootstrap"


def test_mcnemar_counts_only_where_models_differ():
    """8 samples that only one has right against 1: the tail of ten coins less one, twice."""
    first_N = np.array([True] * 50 + [True] * 8 + [False] * 1 + [False] * 30)
    second_N = np.array([True] * 50 + [False] * 8 + [True] * 1 + [False] * 30)
    assert mcnemar(first_N, second_N) == pytest.approx(2 * (1 + 9) / 2**9)
    assert mcnemar(first_N, first_N) == 1.0
    assert mcnemar(second_N, first_N) == mcnemar(first_N, second_N)


def test_paired_bootstrap_is_narrower_than_two_intervals():
    """Two models that agree on most samples."""
    rng = np.random.default_rng(0)
    first_N = rng.random(1000) < 0.5
    second_N = np.where(rng.random(1000) < 0.1, rng.random(1000) < 0.9, first_N)
    found = paired_bootstrap(mean(first_N), mean(second_N), np.arange(1000), 1000, 0)
    assert found.difference == pytest.approx(second_N.mean() - first_N.mean())
    delta_N = second_N.astype(float) - first_N
    half = Z_95 * delta_N.std() / math.sqrt(1000)
    assert found.interval.low == pytest.approx(found.difference - half, abs=0.004)
    assert found.interval.high == pytest.approx(found.difference + half, abs=0.004)
    assert half < 0.6 * (wilson(500, 1000).high - wilson(500, 1000).low) / 2 * math.sqrt(2)
    assert found.p == pytest.approx(scipy.stats.ttest_1samp(delta_N, 0).pvalue, abs=0.02)


def test_paired_bootstrap_of_equal_models():
    hit_N = np.arange(40) % 3 == 0
    found = paired_bootstrap(mean(hit_N), mean(hit_N), np.arange(40), 200, 0)
    assert (found.difference, found.p) == (0.0, 1.0)


def test_paired_bootstrap_false_alarms_are_as_rare_as_it_says():
    rng = np.random.default_rng(4)
    alarms = 0
    for trial in range(300):
        first_N, second_N = rng.random((2, 60)) < 0.5
        found = paired_bootstrap(mean(first_N), mean(second_N), np.arange(60), 200, trial)
        alarms += found.p < 0.05
    assert 0.02 <= alarms / 300 <= 0.09


def test_mean_of_sets_has_the_spread_of_its_sets():
    intervals = [wilson(30, 100), wilson(800, 1000), wilson(5, 50)]
    found = mean_of_sets([0.3, 0.8, 0.1], intervals)
    halves = [(i.high - i.low) / 2 for i in intervals]
    expected = math.sqrt(sum(half**2 for half in halves)) / 3
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.05)
    assert found.low < 0.4 < found.high


def test_t_interval_is_scipys():
    value_S = np.array([0.3, 0.5, 0.9, 0.4])
    expected = scipy.stats.ttest_1samp(value_S, 0).confidence_interval(0.95)
    assert t_interval(value_S)[:2] == pytest.approx(tuple(expected))
    with pytest.raises(ValueError, match="no spread"):
        t_interval(value_S[:1])
