"""Linear probe: how much of a set's classes lies ready in the features (CLIP paper, appendix A.3).

A logistic regression on frozen features. Its penalty is chosen on validation data, from 1e-6 to
1e6 at eight steps a decade: seven values first, then the distance to the best is halved until it
is one step. The classifier is then fitted to training and validation data together.

`select` takes training and validation data; test data has a type of its own, which only
`Classifier.test` takes, after the penalty is settled.

Shapes: N samples, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eval import logistic, metrics
from eval.metrics import Weighted

STEPS = 96  # from the smallest penalty to the largest, eight a decade
FIRST = 16  # steps between the seven penalties tried first

Array = NDArray[np.floating]
# Scores (N, C), the higher the likelier, and labels, to one number, the higher the better.
Measure = Callable[[NDArray[np.float64], NDArray[np.int64]], float]


@dataclass(frozen=True)
class Labelled:
    """Data that may be learnt from: features (N, D) and labels (N,), or 0/1 labels (N, C)."""

    x_ND: Array
    label: NDArray[np.int64]

    def __post_init__(self) -> None:
        _check(self.x_ND, self.label)

    def joined(self, other: Labelled) -> Labelled:
        """Both together."""
        return Labelled(
            np.concatenate([self.x_ND, other.x_ND]), np.concatenate([self.label, other.label])
        )


@dataclass(frozen=True)
class Held:
    """Test data: of another type than `Labelled`, so that nothing can be chosen by it."""

    x_ND: Array
    label: NDArray[np.int64]

    def __post_init__(self) -> None:
        _check(self.x_ND, self.label)


@dataclass(frozen=True)
class Classifier:
    """A fitted probe.

    Attributes:
        penalty: lambda.
        gap: estimated distance of the objective to its minimum, as a share of it.
    """

    weight_DC: NDArray[np.float64]
    bias_C: NDArray[np.float64]
    penalty: float
    converged: bool
    gap: float

    def scores(self, x_ND: Array) -> NDArray[np.float64]:
        """Logits (N, C); -inf for classes that the training data lacks."""
        scores_NC: NDArray[np.float64] = x_ND.astype(np.float64) @ self.weight_DC + self.bias_C
        return scores_NC

    def test(self, held: Held, measure: Measure) -> float:
        """The number that a probe is made for."""
        return measure(self.scores(held.x_ND), held.label)


@dataclass(frozen=True)
class Selected:
    """A penalty, and how it was found.

    Attributes:
        tried: every penalty that was fitted with its score on validation data, ascending.
        converged: whether all of these fits reached their minimum.
    """

    penalty: float
    score: float
    tried: tuple[tuple[float, float], ...]
    converged: bool


def penalty(step: int) -> float:
    """The `step`-th of the 97 penalties from 1e-6 to 1e6."""
    return float(10.0 ** (12 * step / STEPS - 6))


def measure_of(name: str, positive: int = 1) -> Measure:
    """A metric of eval/metrics.py, by name, of scores (N, C) and labels."""

    def value(score_NC: NDArray[np.float64], label: NDArray[np.int64]) -> float:
        return metrics.plain(weighted(name, score_NC, label, positive), len(label))

    return value


def weighted(
    name: str, score_NC: NDArray[np.float64], label: NDArray[np.int64], positive: int = 1
) -> Weighted:
    """The same for samples that count more or less than once.

    Raises:
        ValueError: the metric is none of a classifier.
    """
    if name in (metrics.MAP, metrics.MAP_11):
        return metrics.mean_average_precision(score_NC, label, name == metrics.MAP_11)
    if name == metrics.ROC_AUC:
        side_N = score_NC[:, positive] - score_NC[:, 1 - positive]
        return metrics.roc_auc(side_N, label == positive)
    rank_N = ranks(score_NC, label)
    if name == metrics.PER_CLASS:
        return metrics.mean_per_class(rank_N == 0, label)
    if name == metrics.TOP_1_5:
        return metrics.mean((rank_N < 1) / 2 + (rank_N < 5) / 2)
    if name in (metrics.TOP_1, metrics.TOP_5):
        return metrics.mean(rank_N < (1 if name == metrics.TOP_1 else 5))
    raise ValueError(f"{name} is no metric of a classifier")


def ranks(score_NC: Array, label_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many other classes score at least as high as the right one; 0 is a hit."""
    own_N1 = np.take_along_axis(score_NC, label_N[:, None], axis=1)
    rank_N: NDArray[np.int64] = (score_NC >= own_N1).sum(axis=1) - 1
    return rank_N


accuracy = measure_of(metrics.TOP_1)


def fit(
    data: Labelled, penalties: list[float], classes: int, device: str = "cpu"
) -> list[Classifier]:
    """A classifier for each penalty, fitted together."""
    prepared = logistic.prepare(torch.from_numpy(data.x_ND), device)
    return _fit(prepared, data.label, penalties, classes, device)


def select(
    train: Labelled,
    validation: Labelled,
    classes: int,
    measure: Measure = accuracy,
    device: str = "cpu",
) -> Selected:
    """Choose the penalty by the search of the paper; where two are as good, the larger.

    Raises:
        TypeError: test data in place of training or validation data.
    """
    for data in (train, validation):
        if not isinstance(data, Labelled):
            raise TypeError("a penalty is chosen on training and validation data only")
    prepared = logistic.prepare(torch.from_numpy(train.x_ND), device)
    found: dict[int, float] = {}
    converged, distance = True, FIRST
    wanted = list(range(0, STEPS + 1, FIRST))
    while True:
        new = [step for step in wanted if 0 <= step <= STEPS and step not in found]
        if new:
            fits = _fit(prepared, train.label, [penalty(i) for i in new], classes, device)
            for step, classifier in zip(new, fits, strict=True):
                found[step] = measure(classifier.scores(validation.x_ND), validation.label)
                converged &= classifier.converged
        best = max(found, key=lambda step: (found[step], step))
        distance //= 2
        if not distance:
            tried = tuple((penalty(step), found[step]) for step in sorted(found))
            return Selected(penalty(best), found[best], tried, converged)
        wanted = [best - distance, best + distance]


def probe(
    train: Labelled,
    validation: Labelled,
    classes: int,
    measure: Measure = accuracy,
    device: str = "cpu",
) -> tuple[Selected, Classifier]:
    """The whole recipe: choose the penalty, then fit training and validation data together."""
    selected = select(train, validation, classes, measure, device)
    (classifier,) = fit(train.joined(validation), [selected.penalty], classes, device)
    return selected, classifier


def split_off(data: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """Training and validation data of a set without an official validation split.

    Of each class, `share` of the samples go to validation, but never the last one; of multilabel
    data, `share` of each set of labels that occurs together.
    """
    rng = np.random.default_rng(seed)
    validation_N = np.zeros(len(data.label), bool)
    _, stratum_N = np.unique(data.label, axis=0, return_inverse=True)
    for stratum in range(int(stratum_N.max()) + 1):
        member_M = rng.permutation(np.flatnonzero(stratum_N == stratum))
        count = min(max(1, round(share * len(member_M))), len(member_M) - 1)
        validation_N[member_M[:count]] = True
    return (
        Labelled(data.x_ND[~validation_N], data.label[~validation_N]),
        Labelled(data.x_ND[validation_N], data.label[validation_N]),
    )


def _fit(
    prepared: logistic.Data,
    label: NDArray[np.int64],
    penalties: list[float],
    classes: int,
    device: str,
) -> list[Classifier]:
    """Fits over the classes that occur; the others get no chance, whatever the features."""
    if label.ndim == 2:
        present_K, dense = np.arange(classes), label
    else:
        present_K, dense = np.unique(label, return_inverse=True)
    aim = logistic.target(torch.from_numpy(dense), len(present_K), device)
    found = logistic.fit(prepared, aim, penalties)
    out = []
    for i, value in enumerate(penalties):
        weight_DC = np.zeros((found.weight_LDC.shape[1], classes))
        bias_C = np.full(classes, -np.inf)
        weight_DC[:, present_K] = found.weight_LDC[i].numpy()
        bias_C[present_K] = found.bias_LC[i].numpy()
        out.append(
            Classifier(weight_DC, bias_C, value, bool(found.converged_L[i]), float(found.gap_L[i]))
        )
    return out


def _check(x_ND: Array, label: NDArray[np.int64]) -> None:
    if len(x_ND) != len(label) or not len(x_ND):
        raise ValueError(f"{len(x_ND)} features and {len(label)} labels: one label for each")
    if not np.isfinite(x_ND).all():
        raise ValueError("features must be finite")
