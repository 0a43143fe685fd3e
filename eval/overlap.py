"""Whether test images that the corpus holds too have made a score better (CLIP paper, section 5).

Pairs of a test image and the image of the corpus that it resembles most come from a duplicate
detector; those at or above a threshold are the Overlap, the rest is Clean. What contamination did
to the score is All - Clean. Whether Overlap is answered better than Clean is a one-sided binomial
test, beside the 99.5% Clopper-Pearson interval of the Overlap's accuracy; of several sets, p is
multiplied by their number (Bonferroni).

Overlap and Clean may differ in difficulty too: `matched` is the accuracy of Clean with classes as
frequent as in Overlap.

Shapes: N test images, J labelled pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from eval.stats import Interval, wilson

CONFIDENCE = 0.995  # of the paper's Clopper-Pearson intervals


@dataclass(frozen=True)
class Overlap:
    """One set; accuracies are shares of 1, None where there is no image.

    Attributes:
        shift: accuracy of All less that of Clean: what the overlap adds to the score.
        interval: 99.5% Clopper-Pearson of the accuracy of Overlap.
        p: chance of as many hits in Overlap if it were as easy as Clean.
        matched: accuracy of Clean, classes weighed as in Overlap; classes that Clean lacks are
            left out of both sides of it.
    """

    images: int
    overlapping: int
    accuracy_all: float
    accuracy_overlap: float | None
    accuracy_clean: float | None
    shift: float
    interval: Interval | None
    p: float
    matched: float | None

    @property
    def share(self) -> float:
        """Share of the test images that are in the corpus too."""
        return self.overlapping / self.images


def clopper_pearson(hits: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Exact interval of a proportion (Clopper and Pearson 1934)."""
    found = binomtest(hits, n).proportion_ci(confidence, "exact")
    return Interval(float(found.low), float(found.high), f"clopper-pearson {100 * confidence:g}%")


def analyse(
    hit_N: NDArray[np.bool_], overlap_N: NDArray[np.bool_], label_N: NDArray[np.int64]
) -> Overlap:
    """The numbers of one set.

    Args:
        overlap_N: whether the image is in the corpus too.
    """
    n, held = len(hit_N), int(overlap_N.sum())
    clean = n - held
    accuracy_all = float(hit_N.mean())
    accuracy_clean = float(hit_N[~overlap_N].mean()) if clean else None
    p, interval, accuracy_overlap = 1.0, None, None
    if held:
        hits = int(hit_N[overlap_N].sum())
        accuracy_overlap, interval = hits / held, clopper_pearson(hits, held)
        if accuracy_clean is not None:
            p = float(binomtest(hits, held, accuracy_clean, alternative="greater").pvalue)
    return Overlap(
        n,
        held,
        accuracy_all,
        accuracy_overlap,
        accuracy_clean,
        accuracy_all - accuracy_clean if accuracy_clean is not None else 0.0,
        interval,
        p,
        _matched(hit_N, overlap_N, label_N),
    )


def bonferroni(p: float, tests: int) -> float:
    """p of the most striking of so many tests."""
    return min(1.0, p * tests)


def _matched(
    hit_N: NDArray[np.bool_], overlap_N: NDArray[np.bool_], label_N: NDArray[np.int64]
) -> float | None:
    classes = int(label_N.max()) + 1
    held_C = np.bincount(label_N[overlap_N], minlength=classes)
    clean_C = np.bincount(label_N[~overlap_N], minlength=classes)
    right_C = np.bincount(label_N[~overlap_N], hit_N[~overlap_N], classes)
    both_C = (held_C > 0) & (clean_C > 0)
    if not both_C.any():
        return None
    return float((right_C[both_C] / clean_C[both_C]) @ held_C[both_C] / held_C[both_C].sum())


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it does on the labelled pairs.

    Attributes:
        precision, recall: with Wilson's 95% intervals; recall is of the labelled sample's pairs,
            which are drawn evenly over scores and not as often as they occur.
    """

    score: float
    precision: tuple[float, Interval]
    recall: tuple[float, Interval]
    labelled: int


def choose_threshold(score_J: NDArray[np.float64], same_J: NDArray[np.bool_]) -> Threshold:
    """The threshold with the best F1 on labelled pairs; of several, the highest.

    Raises:
        ValueError: no pair is the same picture, or none is different.
    """
    if not same_J.any() or same_J.all():
        raise ValueError("a threshold needs pairs that are the same picture and pairs that aren't")
    order = np.argsort(-score_J, kind="stable")
    score_J, same_J = score_J[order], same_J[order]
    last_J = np.append(score_J[1:] != score_J[:-1], True)  # of equal scores
    found_J, taken_J = np.cumsum(same_J), np.arange(1, len(score_J) + 1)
    f1_J = np.where(last_J, 2 * found_J / (taken_J + same_J.sum()), -1)
    best = int(f1_J.argmax())
    found, taken, total = int(found_J[best]), best + 1, int(same_J.sum())
    return Threshold(
        float(score_J[best]),
        (found / taken, wilson(found, taken)),
        (found / total, wilson(found, total)),
        len(score_J),
    )


def sample_pairs(score_J: NDArray[np.float64], count: int, seed: int) -> NDArray[np.int64]:
    """Positions of pairs to label: as many from each tenth of the range of scores, shuffled.

    The pairs near a threshold are rare among all; drawn evenly, they are seen.
    """
    rng = np.random.default_rng(seed)
    low, high = float(score_J.min()), float(score_J.max())
    bin_J = np.minimum(((score_J - low) / max(high - low, 1e-12) * 10).astype(int), 9)
    queues = [rng.permutation(np.flatnonzero(bin_J == b)).tolist() for b in range(10)]
    chosen: list[int] = []
    while len(chosen) < min(count, len(score_J)):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop())
    return rng.permutation(np.array(chosen, np.int64))
