"""The solver beside scikit-learn and against the definition of a minimum."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from eval import logistic


def blobs(samples, width, classes, seed=0):
    """Overlapping classes, features of very different scales, far from the origin."""
    rng = np.random.default_rng(seed)
    scale_D = 10.0 ** rng.uniform(-2, 2, width)
    label_N = np.concatenate([np.arange(classes), rng.integers(0, classes, samples - classes)])
    x_ND = rng.normal(size=(classes, width))[label_N] + 1.5 * rng.normal(size=(samples, width))
    return ((x_ND + 5) * scale_D).astype(np.float32), label_N


def peer(x_ND, label_N, penalty):
    """scikit-learn's solution, by the solver that comes nearest to the minimum."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near rounding it says it stops
        return LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-9).fit(
            x_ND.astype(np.float64), label_N
        )


def objective(x_ND, label_N, weight_DC, bias_C, penalty):
    """What is minimised, written down plainly in float64."""
    score_NC = x_ND.astype(np.float64) @ weight_DC + bias_C
    loss_N = np.logaddexp.reduce(score_NC, axis=1) - score_NC[np.arange(len(x_ND)), label_N]
    return loss_N.sum() + penalty / 2 * (weight_DC**2).sum()


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_equals_scikit_learn_on_digits(classes):
    """Real pictures: the same objective to 1e-4, and the same answers but for one sample."""
    x_ND, label_N = load_digits(n_class=classes, return_X_y=True)
    x_ND = x_ND.astype(np.float32)
    half = len(x_ND) // 2
    data = logistic.prepare(torch.from_numpy(x_ND[:half]))
    aim = logistic.target(torch.from_numpy(label_N[:half]), classes)
    penalties = [1e-2, 1.0, 100.0]
    found = logistic.fit(data, aim, penalties)
    assert found.converged_L.all()
    score_LNC = found.scores(torch.from_numpy(x_ND[half:]))
    for i, penalty in enumerate(penalties):
        theirs = peer(x_ND[:half], label_N[:half], penalty)
        pair = (theirs.coef_.T, theirs.intercept_)
        if classes == 2:
            pair = tuple(np.concatenate([np.zeros_like(a), a], axis=-1) for a in pair)
        ours = (found.weight_LDC[i].numpy(), found.bias_LC[i].numpy())
        expected = objective(x_ND[:half], label_N[:half], *pair, penalty)
        got = objective(x_ND[:half], label_N[:half], *ours, penalty)
        assert got == pytest.approx(expected, rel=1e-4)
        assert float(found.objective_L[i]) == pytest.approx(got, rel=1e-5)
        said_N = score_LNC[i].argmax(dim=1).numpy()
        accuracy = theirs.score(x_ND[half:].astype(np.float64), label_N[half:])
        one = 1.001 / len(said_N)  # a sample that lies on the border to the rounding of fp32
        assert (said_N == label_N[half:]).mean() == pytest.approx(accuracy, abs=one)


def test_answers_are_those_of_the_exact_solution():
    """On 10,000 samples that are held out, at most one is answered otherwise at each penalty."""
    x_ND, label_N = blobs(10_800, 24, 8, seed=6)
    x_ND /= x_ND.std(axis=0)
    train_ND, held_ND = x_ND[:800], x_ND[800:]
    data = logistic.prepare(torch.from_numpy(train_ND))
    penalties = [1e-2, 1.0, 100.0]
    found = logistic.fit(data, logistic.target(torch.from_numpy(label_N[:800]), 8), penalties)
    score_LNC = found.scores(torch.from_numpy(held_ND))
    for i, penalty in enumerate(penalties):
        theirs = peer(train_ND, label_N[:800], penalty)
        said_N = score_LNC[i].argmax(dim=1).numpy()
        assert (said_N != theirs.predict(held_ND.astype(np.float64))).sum() <= 1
        expected = objective(train_ND, label_N[:800], theirs.coef_.T, theirs.intercept_, penalty)
        ours = (found.weight_LDC[i].numpy(), found.bias_LC[i].numpy())
        got = objective(train_ND, label_N[:800], *ours, penalty)
        assert got == pytest.approx(expected, rel=1e-6)


def test_equals_scikit_learn_where_scales_differ_by_ten_thousand():
    x_ND, label_N = blobs(400, 30, 5)
    data = logistic.prepare(torch.from_numpy(x_ND), dtype=torch.float64)
    aim = logistic.target(torch.from_numpy(label_N), 5)
    found = logistic.fit(data, aim, [0.1, 10.0], tolerance=1e-8)
    for i, penalty in enumerate([0.1, 10.0]):
        theirs = peer(x_ND, label_N, penalty)
        expected = objective(x_ND, label_N, theirs.coef_.T, theirs.intercept_, penalty)
        assert float(found.objective_L[i]) == pytest.approx(expected, rel=1e-4)


def test_columns_of_yes_and_no_are_fitted_each_by_itself():
    """And what isn't judged is left out of its column alone."""
    x_ND, label_N = blobs(300, 8, 4, seed=1)
    yes_NK = np.stack([label_N == 0, label_N > 1, label_N == 3], axis=1).astype(np.int64)
    yes_NK[np.random.default_rng(0).random(yes_NK.shape) < 0.1] = -1
    data = logistic.prepare(torch.from_numpy(x_ND), dtype=torch.float64)
    aim = logistic.target(torch.from_numpy(yes_NK), 3)
    found = logistic.fit(data, aim, [1.0], tolerance=1e-12)
    for k in range(3):
        judged_N = yes_NK[:, k] >= 0
        theirs = peer(x_ND[judged_N], yes_NK[judged_N, k], 1.0)
        np.testing.assert_allclose(found.weight_LDC[0, :, k], theirs.coef_[0], atol=1e-5, rtol=1e-4)


def test_fewer_samples_than_features():
    """The solution lies in the span of the samples, and is found there."""
    x_ND, label_N = blobs(20, 50, 4, seed=2)
    data = logistic.prepare(torch.from_numpy(x_ND))
    assert data.axes_DR.shape[1] <= 20
    found = logistic.fit(data, logistic.target(torch.from_numpy(label_N), 4), [1.0])
    theirs = peer(x_ND, label_N, 1.0)
    expected = objective(x_ND, label_N, theirs.coef_.T, theirs.intercept_, 1.0)
    assert float(found.objective_L[0]) == pytest.approx(expected, rel=1e-4)


def test_a_constant_feature_changes_nothing():
    x_ND, label_N = blobs(100, 6, 3, seed=3)
    more_ND = np.concatenate([x_ND, np.full((100, 1), 7, np.float32)], axis=1)
    aim = logistic.target(torch.from_numpy(label_N), 3)
    plain, more = (
        logistic.fit(logistic.prepare(torch.from_numpy(x)), aim, [1.0]) for x in (x_ND, more_ND)
    )
    assert float(more.objective_L[0]) == pytest.approx(float(plain.objective_L[0]), rel=1e-6)
    assert float(more.weight_LDC[0, -1].abs().max()) < 1e-6


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6), power=st.integers(-4, 4))
def test_no_step_away_from_the_solution_is_better(seed, classes, power):
    penalty = 10.0**power
    x_ND, label_N = blobs(60, 5, classes, seed)
    x_ND /= np.abs(x_ND).max(axis=0)
    data = logistic.prepare(torch.from_numpy(x_ND), dtype=torch.float64)
    aim = logistic.target(torch.from_numpy(label_N), classes)
    found = logistic.fit(data, aim, [penalty], tolerance=1e-10)
    weight_DC, bias_C = found.weight_LDC[0].numpy(), found.bias_LC[0].numpy()
    least = objective(x_ND, label_N, weight_DC, bias_C, penalty)
    rng = np.random.default_rng(seed)
    free_C = np.arange(classes) >= (classes == 2)  # of two classes, the second has the weights
    for size in (1e-3, 1e-1, 1):
        away_DC = weight_DC + size * rng.normal(size=weight_DC.shape) * free_C
        assert objective(x_ND, label_N, away_DC, bias_C, penalty) >= least * (1 - 1e-8)


def test_penalties_fitted_together_are_those_fitted_alone():
    x_ND, label_N = blobs(200, 10, 4, seed=4)
    data = logistic.prepare(torch.from_numpy(x_ND))
    aim = logistic.target(torch.from_numpy(label_N), 4)
    together = logistic.fit(data, aim, [1e-3, 1.0, 1e3])
    for i, penalty in enumerate([1e-3, 1.0, 1e3]):
        alone = logistic.fit(data, aim, [penalty])
        assert float(together.objective_L[i]) == pytest.approx(
            float(alone.objective_L[0]), rel=1e-5
        )


def test_what_has_not_converged_says_so():
    x_ND, label_N = blobs(200, 10, 4, seed=5)
    data = logistic.prepare(torch.from_numpy(x_ND))
    aim = logistic.target(torch.from_numpy(label_N), 4)
    found = logistic.fit(data, aim, [1e-4, 1e4], max_iterations=3)
    assert found.iterations_L.max() == 3
    assert not found.converged_L[0]
    assert found.gap_L[0] > logistic.TOLERANCE


def test_one_class_is_no_question():
    with pytest.raises(ValueError, match="two classes"):
        logistic.target(torch.zeros(4, dtype=torch.int64), 1)
