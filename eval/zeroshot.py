"""Zero-shot classification: classes become text features, images go to the nearest.

Shapes: N images, C classes, T templates, E embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.prompts import fill

Features = NDArray[np.float32]
TextEncoder = Callable[[Sequence[str]], Features]

TIE = 1e-6  # scores this close are a tie, and ties count against the model
BLOCK = 4096  # images scored at once


def classifier(
    encode: TextEncoder, classes: Sequence[str], templates: Sequence[str], block: int = 4096
) -> Features:
    """Class features by prompt ensembling in embedding space (CLIP paper, section 3.1.4).

    The normalised features of a class' prompts are averaged and the mean is normalised again.
    All classes and templates share batches: `encode` sees blocks of about `block` prompts.

    Args:
        encode: texts to features of unit length, (N, E).

    Returns:
        Features of unit length, (C, E).
    """
    step = max(1, block // len(templates))
    means = []
    for start in range(0, len(classes), step):
        names = classes[start : start + step]
        prompts = [prompt for name in names for prompt in fill(templates, name)]
        text_CTE = encode(prompts).reshape(len(names), len(templates), -1)
        means.append(text_CTE.mean(axis=1, dtype=np.float64))
    mean_CE = np.concatenate(means)
    length_C1 = np.linalg.norm(mean_CE, axis=1, keepdims=True)
    # Prompts that cancel out leave no direction; a zero vector then scores 0 everywhere.
    class_CE: Features = (mean_CE / np.maximum(length_C1, 1e-12)).astype(np.float32)
    return class_CE


@dataclass(frozen=True)
class Predictions:
    """What the classifier said of each image."""

    rank_N: NDArray[np.int64]  # classes that score at least as high as the right one; 0 = right
    best_N: NDArray[np.int64]  # the class that scores highest (the last such, in a tie)
    score_N: NDArray[np.float32]  # cosine of the image and its right class


def classify(image_NE: Features, class_CE: Features, label_N: NDArray[np.int64]) -> Predictions:
    """Rank each image's right class among all classes, ties counting against it.

    A tie is a score within `TIE`. So a model that gives every class the same score is always
    wrong, where argmax would find the first class right.
    """
    ranks, bests, scores = [], [], []
    for start in range(0, len(image_NE), BLOCK):
        label_B = label_N[start : start + BLOCK]
        score_BC = image_NE[start : start + BLOCK] @ class_CE.T
        right_B = score_BC[np.arange(len(label_B)), label_B]
        ranks.append((score_BC >= right_B[:, None] - TIE).sum(axis=1) - 1)
        # An answer that agrees with the rank: in a tie it's not the right class.
        shown_BC = score_BC.copy()
        shown_BC[np.arange(len(label_B)), label_B] -= TIE
        bests.append(shown_BC.argmax(axis=1))
        scores.append(right_B)
    return Predictions(np.concatenate(ranks), np.concatenate(bests), np.concatenate(scores))


def mean_per_class(hit_N: NDArray[np.bool_], label_N: NDArray[np.int64]) -> float:
    """Mean over the classes that have images of the accuracy in each class."""
    _, dense_N, count_C = np.unique(label_N, return_inverse=True, return_counts=True)
    return float((np.bincount(dense_N, weights=hit_N) / count_C).mean())


def chance_at(k: int, classes: int) -> float:
    """Expected top-k accuracy of a random order of the classes."""
    return min(k, classes) / classes
