"""What people said, in the numbers of the CLIP paper's table 2 and figure 16.

Accuracies are means over classes. "I don't know" is a wrong answer, and is left out of the numbers
on guesses. A majority vote counts for the right class in full, or in equal parts with those that
have as many votes. Intervals draw people and pictures again, both at once, for neither's answers
are independent (Owen 2007).

Shapes: A answers, I pictures, P people, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from eval.stats import Interval, wilson

DONT_KNOW = -1
Counts = NDArray[np.int64] | NDArray[np.float64]
NUMBERS = ("accuracy", "majority vote", "accuracy on guesses", "majority vote on guesses")


@dataclass(frozen=True)
class Answers:
    """The answers of one round."""

    person_A: NDArray[np.int64]
    picture_A: NDArray[np.int64]
    said_A: NDArray[np.int64]  # class, or DONT_KNOW
    label_I: NDArray[np.int64]
    classes: int


class Number(NamedTuple):
    """A share of 1 with its interval."""

    value: float
    interval: Interval


class Correlation(NamedTuple):
    """Over classes: human accuracy against the model's."""

    pearson: float
    pearson_p: float
    spearman: float
    spearman_p: float
    classes: int


def answers_of(rows: Sequence[dict[str, Any]], shots: int, classes: int) -> Answers:
    """The answers to pictures of one round; raises ValueError if there are none."""
    chosen = [row for row in rows if row["shots"] == shots and not row["check"]]
    if not chosen:
        raise ValueError(f"no answers with {shots} sample pictures")
    _, person_A = np.unique([row["person"] for row in chosen], return_inverse=True)
    _, first_I, picture_A = np.unique(
        [row["key"] for row in chosen], return_index=True, return_inverse=True
    )
    said_A = np.array([DONT_KNOW if row["said"] is None else row["said"] for row in chosen])
    label_I = np.array([row["label"] for row in chosen], np.int64)[first_I]
    return Answers(person_A, picture_A, said_A.astype(np.int64), label_I, classes)


def numbers(answers: Answers, resamples: int = 2000, seed: int = 0) -> dict[str, Number]:
    """The four numbers of table 2; of fewer than two people there is no interval over people."""
    people, pictures = int(answers.person_A.max()) + 1, len(answers.label_I)
    plain = _values(answers, np.ones(people), np.ones(pictures))
    rng = np.random.default_rng(seed)
    drawn_R4 = np.empty((resamples, len(NUMBERS)))
    for i in range(resamples):
        of_people = np.bincount(rng.integers(0, people, people), minlength=people)
        of_pictures = np.bincount(rng.integers(0, pictures, pictures), minlength=pictures)
        drawn_R4[i] = _values(answers, of_people, of_pictures)
    method = "bootstrap over people and pictures" if people > 1 else "bootstrap over pictures"
    found = {}
    for name, value, drawn_R in zip(NUMBERS, plain, drawn_R4.T, strict=True):
        drawn_R = drawn_R[np.isfinite(drawn_R)]
        low, high = np.quantile(drawn_R, (0.025, 0.975)) if len(drawn_R) else (0.0, 1.0)
        found[name] = Number(float(value), Interval(float(low), float(high), method))
    return found


def attention(rows: Sequence[dict[str, Any]]) -> tuple[int, int, Interval] | None:
    """Attention checks that were passed, of how many, with Wilson's interval."""
    passed = [row["said"] == row["label"] for row in rows if row["check"]]
    return (sum(passed), len(passed), wilson(sum(passed), len(passed))) if passed else None


def accuracy_by_class(answers: Answers) -> NDArray[np.float64]:
    """Share of right answers (C,) by class; NaN for classes that were not asked."""
    label_A = answers.label_I[answers.picture_A]
    count_C = np.bincount(label_A, minlength=answers.classes)
    right_C = np.bincount(label_A, weights=answers.said_A == label_A, minlength=answers.classes)
    return np.where(count_C > 0, right_C / np.maximum(count_C, 1), np.nan)


def hardness(human_C: NDArray[np.float64], model_C: NDArray[np.float64]) -> Correlation:
    """Whether the classes that are hard for people are hard for the model.

    Raises:
        ValueError: fewer than three classes have both, or one side is equal in all of them.
    """
    both_C = np.isfinite(human_C) & np.isfinite(model_C)
    human_C, model_C = human_C[both_C], model_C[both_C]
    if len(human_C) < 3 or np.ptp(human_C) == 0 or np.ptp(model_C) == 0:
        raise ValueError("a correlation needs three classes that differ")
    r, rho = pearsonr(human_C, model_C), spearmanr(human_C, model_C)
    return Correlation(
        float(r.statistic), float(r.pvalue), float(rho.statistic), float(rho.pvalue), len(human_C)
    )


def _values(answers: Answers, of_people: Counts, of_pictures: Counts) -> list[float]:
    """The four numbers when person p counts of_people[p] times and picture i of_pictures[i]."""
    weight_A = of_people[answers.person_A]
    pictures, options = len(answers.label_I), answers.classes + 1
    place_A = answers.picture_A * options + (answers.said_A + 1)  # column 0: don't know
    votes_IO = np.bincount(place_A, weights=weight_A, minlength=pictures * options)
    votes_IO = votes_IO.reshape(pictures, options)
    guesses_IC = votes_IO[:, 1:]
    right_I = np.take_along_axis(guesses_IC, answers.label_I[:, None], axis=1)[:, 0]
    out = []
    for votes in (votes_IO, guesses_IC):
        cast_I = votes.sum(axis=1)
        out.append(_per_class(right_I, cast_I, of_pictures, answers))
        most_I = votes.max(axis=1)
        winners_I = np.maximum((votes == most_I[:, None]).sum(axis=1), 1)
        won_I = np.where((right_I == most_I) & (most_I > 0), 1 / winners_I, 0.0)
        out.append(_per_class(won_I, (cast_I > 0).astype(float), of_pictures, answers))
    return out


def _per_class(
    right_I: Counts,
    cast_I: Counts,
    of_pictures: Counts,
    answers: Answers,
) -> float:
    """Mean over classes of right over cast; NaN where nothing was cast."""
    right_C = np.bincount(answers.label_I, right_I * of_pictures, answers.classes)
    cast_C = np.bincount(answers.label_I, cast_I * of_pictures, answers.classes)
    there_C = cast_C > 0
    return float((right_C[there_C] / cast_C[there_C]).mean()) if there_C.any() else float("nan")
