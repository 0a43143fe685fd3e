"""The numbers of table 2 on answers small enough to count by hand, and against scipy."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from eval import human_analysis as human


def row(person, key, label, said, shots=0, check=False):
    return {"person": person, "key": key, "label": label, "said": said, "shots": shots,
            "check": check}  # fmt: skip


# Two pictures of class 0 and one of class 1, three people.
ROWS = [
    row("ann", "a", 0, 0), row("bob", "a", 0, 0), row("eve", "a", 0, 1),
    row("ann", "b", 0, None), row("bob", "b", 0, None), row("eve", "b", 0, 0),
    row("ann", "c", 1, 0), row("bob", "c", 1, 1), row("eve", "c", 1, None),
    row("ann", "check 0", 1, 1, check=True), row("eve", "check 0", 1, None, check=True),
    row("ann", "a", 0, 0, shots=1),
]  # fmt: skip


def test_the_four_numbers_by_hand():
    found = human.numbers(human.answers_of(ROWS, 0, 2), resamples=200)
    values = {name: number.value for name, number in found.items()}
    assert values == pytest.approx(
        {
            "accuracy": (3 / 6 + 1 / 3) / 2,
            # a: right; b: "don't know" wins; c: a tie of three
            "majority vote": (1 / 2 + 1 / 3) / 2,
            "accuracy on guesses": (3 / 4 + 1 / 2) / 2,
            "majority vote on guesses": (2 / 2 + 1 / 2) / 2,
        }
    )
    for number in found.values():
        assert number.interval.low <= number.value <= number.interval.high


def test_attention_counts_checks_alone():
    passed, total, interval = human.attention(ROWS)
    assert (passed, total) == (1, 2)
    assert interval.low < 0.5 < interval.high
    assert human.attention(ROWS[:3]) is None


def test_rounds_are_apart():
    one = human.answers_of(ROWS, 1, 2)
    assert (len(one.said_A), one.label_I.tolist()) == (1, [0])
    with pytest.raises(ValueError, match="no answers with 2"):
        human.answers_of(ROWS, 2, 2)


def simulated(people, pictures, seed):
    """People of different skill, pictures of different difficulty, ten classes."""
    rng = np.random.default_rng(seed)
    skill_P, ease_I = rng.normal(0.5, 0.7, people), rng.normal(0, 1, pictures)
    rows = []
    for i in range(pictures):
        for p in range(people):
            right = rng.random() < 1 / (1 + np.exp(-skill_P[p] - ease_I[i]))
            label = i % 10
            said = label if right else int((label + rng.integers(1, 10)) % 10)
            rows.append(row(f"p{p}", f"k{i}", label, said))
    return rows


def test_the_interval_covers_the_truth():
    """Of people and pictures like these, the mean accuracy is about 0.6."""
    truth = np.mean(
        [human.numbers(human.answers_of(simulated(30, 60, s), 0, 10), 1)["accuracy"].value
         for s in range(1000, 1010)]
    )  # fmt: skip
    inside = 0
    for seed in range(60):
        answers = human.answers_of(simulated(8, 30, seed), 0, 10)
        interval = human.numbers(answers, 120, seed)["accuracy"].interval
        inside += interval.low <= truth <= interval.high
    assert inside >= 52


def test_a_majority_is_wiser_than_its_members():
    found = human.numbers(human.answers_of(simulated(15, 100, 3), 0, 10), 1)
    assert found["majority vote"].value > found["accuracy"].value + 0.1


def test_hardness_is_scipys_over_the_classes_that_both_have():
    human_C = np.array([0.9, 0.5, 0.7, np.nan, 0.2])
    model_C = np.array([0.95, 0.6, 0.5, 0.4, 0.3])
    found = human.hardness(human_C, model_C)
    expected = spearmanr(human_C[[0, 1, 2, 4]], model_C[[0, 1, 2, 4]])
    assert (found.spearman, found.spearman_p) == pytest.approx(tuple(expected))
    assert found.classes == 4
    with pytest.raises(ValueError, match="three classes"):
        human.hardness(human_C[:2], model_C[:2])


def test_accuracy_by_class():
    shares = human.accuracy_by_class(human.answers_of(ROWS, 0, 3))
    assert shares[:2] == pytest.approx([3 / 6, 1 / 3])
    assert np.isnan(shares[2])
