"""Effective robustness: how far a model is above the line that others follow under a shift.

Over many models, accuracy under a natural shift follows accuracy on the reference set (ImageNet)
along a line in logits. What a model has beyond that line is its effective robustness (Taori et
al. 2020; CLIP paper, section 3.3 and figures 13 to 15). The line is fitted to models that you
call standard, with a bootstrap band over them.

Shapes: N standard models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval import fits
from eval.fits import Floats, Line
from eval.stats import Interval


@dataclass(frozen=True)
class Robustness:
    """One model under one shift; all values are shares of 1.

    Attributes:
        expected: accuracy under the shift of a standard model that is as good on the reference.
        effective: what the model has beyond it; the interval is that of the line alone.
    """

    reference: float
    shifted: float
    expected: float
    effective: float
    interval: Interval


def standard_line(
    reference_N: Floats, shifted_N: Floats, resamples: int = 2000, seed: int = 0
) -> Line:
    """The line of standard models, in logits.

    Raises:
        ValueError: fewer than three models, or an accuracy of 0 or 1.
    """
    return fits.line(fits.logit(reference_N), fits.logit(shifted_N), resamples, seed)


def effective(standard: Line, reference: float, shifted: float) -> Robustness:
    """A model against the line.

    Raises:
        ValueError: the reference accuracy is 0 or 1.
    """
    at = fits.logit(np.array([reference]))
    expected = float(fits.expit(standard.at(at))[0])
    low, high = (float(fits.expit(edge)[0]) for edge in standard.band(at))
    return Robustness(
        reference,
        shifted,
        expected,
        shifted - expected,
        Interval(shifted - high, shifted - low, "bootstrap over standard models"),
    )


def in_subset(
    score_NC: NDArray[np.floating], label_N: NDArray[np.int64], subset: Sequence[int]
) -> NDArray[np.bool_]:
    """Hits on the samples of a subset of classes, with only these classes to choose from.

    The reference accuracy beside a shift that has only some of the classes. Ties count against.

    Returns:
        One hit for each sample whose class is in the subset, in the samples' order.

    Raises:
        ValueError: no sample is of these classes.
    """
    chosen = np.array(sorted(set(subset)), np.int64)
    inside_N = np.isin(label_N, chosen)
    if not inside_N.any():
        raise ValueError("no sample is of the subset's classes")
    score_MS = score_NC[inside_N][:, chosen]
    place_M = np.searchsorted(chosen, label_N[inside_N])
    own_M1 = np.take_along_axis(score_MS, place_M[:, None], axis=1)
    hit_M: NDArray[np.bool_] = (score_MS >= own_M1).sum(axis=1) == 1
    return hit_M


def pooled(score_NC: NDArray[np.floating], groups: Sequence[Sequence[int]]) -> Floats:
    """Scores (N, G) of coarser classes: of each, the best of its fine classes' scores."""
    pooled_NG: Floats = np.stack(
        [score_NC[:, list(group)].max(axis=1) for group in groups], axis=1
    ).astype(np.float64)
    return pooled_NG


def pm_k(
    hit_N: NDArray[np.bool_], clip_N: NDArray[np.generic], anchor_N: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Hits on the clips of ImageNet-Vid and YTBB: on the anchor frame, and on all frames.

    pm-0 asks for the anchor alone, pm-10 for every frame within ten of it (Shankar et al. 2021);
    the paper reports the mean of both.

    Args:
        clip_N: the clip of each frame.
        anchor_N: whether the frame is its clip's anchor; each clip has exactly one.

    Raises:
        ValueError: a clip without an anchor, or with two.
    """
    _, dense_N = np.unique(clip_N, return_inverse=True)
    anchors_V = np.bincount(dense_N, weights=anchor_N)
    if (anchors_V != 1).any():
        raise ValueError("every clip has exactly one anchor frame")
    frames_V = np.bincount(dense_N)
    first_V = np.bincount(dense_N, weights=hit_N & anchor_N) == 1
    return first_V, np.bincount(dense_N, weights=hit_N) == frames_V
