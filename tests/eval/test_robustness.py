"""Effective robustness against its definition."""

import numpy as np
import pytest
from scipy.special import expit, logit

from eval import robustness


def test_a_model_on_the_line_has_none_and_one_above_has_the_rest():
    rng = np.random.default_rng(0)
    reference_N = np.linspace(0.5, 0.85, 30)
    shifted_N = expit(0.9 * logit(reference_N) - 1 + 0.02 * rng.normal(size=30))
    line = robustness.standard_line(reference_N, shifted_N)
    assert line.slope == pytest.approx(0.9, abs=0.05)
    on = robustness.effective(line, 0.7, float(expit(0.9 * logit(0.7) - 1)))
    assert on.effective == pytest.approx(0, abs=0.005)
    assert on.interval.low - 0.005 < 0 < on.interval.high + 0.005
    above = robustness.effective(line, 0.7, 0.8)
    assert above.effective == pytest.approx(0.8 - expit(0.9 * logit(0.7) - 1), abs=0.005)
    assert above.interval.low > 0.1
    assert above.expected + above.effective == pytest.approx(0.8)


def test_class_subset_is_a_smaller_question():
    score_NC = np.array(
        [
            [0.1, 0.9, 0.5],  # class 2: wrong of three, right of {0, 2}
            [0.6, 0.9, 0.5],  # class 0: the same
            [0.1, 0.9, 0.5],  # class 1: not asked
            [0.5, 0.1, 0.5],  # class 2: a tie counts against
        ]
    )
    hits = robustness.in_subset(score_NC, np.array([2, 0, 1, 2]), [2, 0])
    assert hits.tolist() == [True, True, False]
    with pytest.raises(ValueError, match="no sample"):
        robustness.in_subset(score_NC, np.array([1, 1, 1, 1]), [0])


def test_pooled_classes_have_the_best_score_of_their_parts():
    score_NC = np.array([[1.0, 5.0, 2.0, 3.0]])
    assert robustness.pooled(score_NC, [[0], [1, 2], [3, 0]]).tolist() == [[1, 5, 3]]


def test_pm_0_asks_for_the_anchor_and_pm_10_for_every_frame():
    clip_N = np.array(["a", "a", "b", "b", "c"])
    anchor_N = np.array([True, False, False, True, True])
    hit_N = np.array([True, False, True, True, False])
    first_V, all_V = robustness.pm_k(hit_N, clip_N, anchor_N)
    assert first_V.tolist() == [True, True, False]
    assert all_V.tolist() == [False, True, False]
    with pytest.raises(ValueError, match="exactly one anchor"):
        robustness.pm_k(hit_N, clip_N, np.zeros(5, bool))
