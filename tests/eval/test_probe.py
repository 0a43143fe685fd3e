"""The recipe of the paper, on scikit-learn's digits and on data with a known answer."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from eval import probe
from eval.probe import Held, Labelled


@pytest.fixture(scope="module")
def digits():
    """1,797 real handwritten digits: 1,000 to learn from, 297 to choose by, 500 to test."""
    x_ND, label_N = load_digits(return_X_y=True)
    order_N = np.random.default_rng(0).permutation(len(x_ND))
    x_ND, label_N = x_ND[order_N].astype(np.float32), label_N[order_N].astype(np.int64)
    parts = [slice(0, 1000), slice(1000, 1297), slice(1297, None)]
    train, validation, test = ((x_ND[part], label_N[part]) for part in parts)
    return Labelled(*train), Labelled(*validation), Held(*test)


def test_digits_end_where_scikit_learn_ends(digits):
    """The penalty found, refitted by scikit-learn: the same accuracy to 1e-4, about 96%."""
    train, validation, test = digits
    selected, classifier = probe.probe(train, validation, 10)
    assert selected.converged
    assert classifier.converged
    both = train.joined(validation)
    theirs = LogisticRegression(C=1 / selected.penalty, tol=1e-9, max_iter=10_000)
    theirs.fit(both.x_ND.astype(np.float64), both.label)
    expected = theirs.score(test.x_ND.astype(np.float64), test.label)
    assert classifier.test(test, probe.accuracy) == pytest.approx(expected, abs=1e-4)
    assert 0.94 < expected < 0.99


def test_the_search_tries_seven_then_halves(digits):
    train, validation, _ = digits
    selected = probe.select(train, validation, 10)
    tried = [penalty for penalty, _ in selected.tried]
    assert {1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6} <= {float(f"{p:.6g}") for p in tried}
    assert 7 + 4 <= len(tried) <= 7 + 2 * 4
    best = tried.index(selected.penalty)
    neighbours = [tried[i] for i in (best - 1, best + 1) if 0 <= i < len(tried)]
    for neighbour in neighbours:  # one of 96 steps away
        assert abs(np.log10(neighbour / selected.penalty)) == pytest.approx(1 / 8)
    assert selected.score == max(score for _, score in selected.tried)


@pytest.mark.parametrize("peak", [0, 3, 16, 41, 50, 95, 96])
def test_the_search_finds_a_single_peak(monkeypatch, peak):
    """With a validation score that has one peak, anywhere on the 97 steps."""

    class Stub:
        converged = True

        def __init__(self, penalty):
            self.penalty = penalty

        def scores(self, x_ND):
            return np.array([[self.penalty]])

    monkeypatch.setattr(probe, "_fit", lambda _, __, penalties, *___: [Stub(p) for p in penalties])
    data = Labelled(np.zeros((2, 1), np.float32), np.array([0, 1]))
    selected = probe.select(
        data, data, 2, lambda s, _: -abs(np.log10(s[0, 0]) - np.log10(probe.penalty(peak)))
    )
    assert selected.penalty == pytest.approx(probe.penalty(peak))


def test_equally_good_penalties_give_the_largest():
    x_ND = np.array([[-1.0], [1.0]], np.float32).repeat(5, axis=0)
    data = Labelled(x_ND, np.array([0] * 5 + [1] * 5))
    assert probe.select(data, data, 2).penalty == pytest.approx(1e6)


def test_test_data_can_not_choose_the_penalty(digits):
    train, validation, test = digits
    with pytest.raises(TypeError, match="validation data only"):
        probe.select(train, test, 10)
    with pytest.raises(TypeError, match="validation data only"):
        probe.select(test, validation, 10)


def test_an_absent_class_is_never_the_answer(digits):
    train, _, test = digits
    without = train.label != 3
    (classifier,) = probe.fit(Labelled(train.x_ND[without], train.label[without]), [1.0], 10)
    said_N = classifier.scores(test.x_ND).argmax(axis=1)
    assert 3 not in said_N
    right_N = said_N == test.label
    assert right_N[test.label != 3].mean() > 0.9


def test_measures_are_scikit_learns():
    rng = np.random.default_rng(0)
    score_NC, label_N = rng.normal(size=(200, 7)), rng.integers(0, 7, 200)
    said_N = score_NC.argmax(axis=1)
    top_5 = top_k_accuracy_score(label_N, score_NC, k=5)
    expected = {
        "top-1": accuracy_score(label_N, said_N),
        "top-5": top_5,
        "mean per class": balanced_accuracy_score(label_N, said_N),
        "mean of top-1 and top-5": (accuracy_score(label_N, said_N) + top_5) / 2,
    }
    for name, value in expected.items():
        assert probe.measure_of(name)(score_NC, label_N) == pytest.approx(value)
    pair_NC, side_N = score_NC[:, :2], label_N % 2
    auc = roc_auc_score(side_N == 0, pair_NC[:, 0] - pair_NC[:, 1])
    assert probe.measure_of("ROC AUC", positive=0)(pair_NC, side_N) == pytest.approx(auc)
    with pytest.raises(ValueError, match="no metric of a classifier"):
        probe.measure_of("mean R@1")(score_NC, label_N)


def test_a_class_without_a_chance_is_never_a_hit():
    """Also where every class is -inf: a tie counts against the right one."""
    score_NC = np.array([[-np.inf, -np.inf], [0.0, -np.inf]])
    assert probe.ranks(score_NC, np.array([0, 1])).tolist() == [1, 1]


def test_split_off_keeps_something_of_every_class():
    label_N = np.array([0] * 10 + [1] * 2 + [2])
    data = Labelled(np.arange(13, dtype=np.float32)[:, None], label_N)
    train, validation = probe.split_off(data, 0.2, seed=0)
    assert sorted(np.concatenate([train.x_ND, validation.x_ND])[:, 0]) == list(range(13))
    assert np.bincount(train.label).tolist() == [8, 1, 1]
    assert np.bincount(validation.label, minlength=3).tolist() == [2, 1, 0]


def test_features_and_labels_must_fit():
    with pytest.raises(ValueError, match="one label for each"):
        Labelled(np.zeros((3, 2), np.float32), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="finite"):
        Held(np.full((1, 2), np.nan, np.float32), np.zeros(1, np.int64))
