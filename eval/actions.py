"""The task `actions`: unusual actions in videos, RareAct's mWAP and mWSAP (table 15).

An action is a verb and a noun. Each clip was annotated for one action: 1 shows it; 2 the verb
alone, 3 the noun alone, 4 both, but not one done to the other; 0 neither. A set for this is a CSV
file whose `label` is the action, with columns `verb`, `noun`, `annotation` and `video`; images of
one `group` are frames of one clip. For each action that some clip shows, clips are ranked by its
probability, averaged over frames (Miech et al. 2020):

- positives are clips that were found to show it; negatives, those that were found not to; clips
  that show another action are negatives too, hard ones if it has the same verb or noun;
- clips of one video are not independent. In mWAP each counts one over the number of clips that
  its video has among the positives, the negatives or the hard negatives; for mWSAP one of them
  is drawn, and the mean of 100 draws taken.

Shapes: N frames, V clips, A actions, M clips that count for one action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eval import frames, metrics, shift, stats
from eval.metrics import Weighted, Weights
from eval.report import Metric, Result
from eval.task import protocol
from wit.errors import InputError

if TYPE_CHECKING:
    from eval.config import EvalConfig
    from eval.evalset import EvalSample, EvalSet
    from eval.features import Encoder

COLUMNS = ("verb", "noun", "annotation", "video")
NEGATIVE, POSITIVE, HARD = 0, 1, 2  # kinds of clips; annotations of 2 and more are hard negatives
ANNOTATIONS = ("0", "1", "2", "3", "4")
DRAWS = 100  # of one clip of each video, for mWSAP
MWAP, MWSAP = "mWAP", "mWSAP"


@dataclass(frozen=True)
class Clips:
    """The clips of a set, in the order of their names."""

    names: tuple[str, ...]
    action_V: NDArray[np.int64]  # the action that it was annotated for
    annotation_V: NDArray[np.int64]
    video_V: NDArray[np.int64]
    action_of: tuple[tuple[str, str], ...]  # verb and noun of each action


@dataclass(frozen=True)
class Ranked:
    """The clips that count for one action."""

    clip_M: NDArray[np.int64]
    kind_M: NDArray[np.int64]  # POSITIVE, NEGATIVE or HARD
    place_M: NDArray[np.int64]  # clips of one kind and one video share a place
    precision: Weighted  # average precision by the weights of these clips


def kinds_for(clips: Clips, action: int) -> NDArray[np.int64]:
    """What each clip is for an action (V,); -1 if it says nothing of it."""
    own_V = clips.action_V == action
    verb, noun = clips.action_of[action]
    same_A = np.array([v == verb for v, _ in clips.action_of])
    noun_A = np.array([n == noun for _, n in clips.action_of])
    near_V = (same_A | noun_A)[clips.action_V]
    elsewhere_V = np.where(near_V, HARD, NEGATIVE)  # of clips that show another action
    kind_V = np.where(clips.annotation_V == POSITIVE, elsewhere_V, -1)
    kind_V[own_V] = np.minimum(clips.annotation_V[own_V], HARD)
    return kind_V


def ranked(clips: Clips, score_VA: NDArray[np.float64]) -> list[Ranked]:
    """One entry for each action that some clip shows."""
    found = []
    for action in range(len(clips.action_of)):
        kind_V = kinds_for(clips, action)
        clip_M = np.flatnonzero(kind_V >= 0)
        kind_M = kind_V[clip_M]
        if not (kind_M == POSITIVE).any():
            continue
        both = np.stack([kind_M, clips.video_V[clip_M]])
        place_M = np.unique(both, axis=1, return_inverse=True)[1].ravel()
        truth_M = (kind_M == POSITIVE).astype(np.int64)
        precision = metrics.average_precision(score_VA[clip_M, action], truth_M)
        found.append(Ranked(clip_M, kind_M, place_M, precision))
    return found


def weighted(actions: Sequence[Ranked]) -> Weighted:
    """mWAP: clips of one kind and video share a weight of one."""
    share = [1 / np.bincount(one.place_M)[one.place_M] for one in actions]

    def value(weight_V: Weights) -> float:
        each = [
            one.precision(weight_V[one.clip_M] * share_M)
            for one, share_M in zip(actions, share, strict=True)
        ]
        return _mean(each)

    return value


def sampled(actions: Sequence[Ranked], draws: int, rng: np.random.Generator) -> Weighted:
    """mWSAP: one clip of each kind and video, drawn anew each time."""

    def value(weight_V: Weights) -> float:
        each = []
        for one in actions:
            precisions = []
            for _ in range(draws):
                order_M = np.lexsort((rng.random(len(one.place_M)), one.place_M))
                first_M = np.diff(one.place_M[order_M], prepend=-1) > 0
                chosen_M = np.zeros(len(order_M), np.int64)
                chosen_M[order_M[first_M]] = 1
                precisions.append(one.precision(weight_V[one.clip_M] * chosen_M))
            each.append(_mean(precisions))
        return _mean(each)

    return value


def _mean(values: Sequence[float]) -> float:
    """Of those that are defined."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def clips_of(data: EvalSet, samples: Sequence[EvalSample]) -> tuple[Clips, NDArray[np.int64]]:
    """The clips, and the clip of each frame (N,).

    Raises:
        InputError: a column is missing, or frames of one clip differ in one.
    """
    action_of: dict[int, tuple[str, str]] = {}
    about: dict[str, tuple[int, int, str]] = {}
    for sample in samples:
        where = f"{data.path}: {sample.key}"
        for column in COLUMNS:
            if not sample.meta.get(column):
                raise InputError(f"{where} has no {column}; rows need {', '.join(COLUMNS)}")
        annotation = sample.meta["annotation"]
        if annotation not in ANNOTATIONS:
            raise InputError(f"{where} has annotation {annotation!r}; it is one of 0 to 4")
        action = (sample.meta["verb"], sample.meta["noun"])
        if action_of.setdefault(sample.label, action) != action:
            raise InputError(f"{where}: {data.classes[sample.label]} has another verb or noun")
        row = (sample.label, int(annotation), sample.meta["video"])
        if about.setdefault(_clip(sample), row) != row:
            raise InputError(f"{where}: frames of clip {_clip(sample)} differ in what they show")
    names, clip_N = np.unique([_clip(sample) for sample in samples], return_inverse=True)
    action_V, annotation_V, video_V = zip(*(about[name] for name in names.tolist()), strict=True)
    clips = Clips(
        tuple(names.tolist()),
        np.array(action_V),
        np.array(annotation_V),
        np.unique(video_V, return_inverse=True)[1],
        tuple(action_of.get(i, ("", "")) for i in range(len(data.classes))),
    )
    return clips, clip_N


def _clip(sample: EvalSample) -> str:
    return sample.meta.get("group", sample.key)


def run(data: EvalSet, encoder: Encoder, config: EvalConfig) -> Result:
    """mWAP and mWSAP, with intervals over videos.

    Raises:
        InputError: the set lacks a column, or no clip shows its action.
    """
    images = encoder.images(data)
    samples = [data.samples[i] for i in images.kept_N]
    clips, clip_N = clips_of(data, samples)
    logit_NA = encoder.model.logit_scale * (
        images.image_NE @ shift.zero_shot_classifier(data, encoder).T
    )
    score_VA = frames.averaged(metrics.softmax(logit_NA), clip_N, len(clips.names))
    actions = ranked(clips, score_VA)
    if not actions:
        raise InputError(f"{data.path}: no clip shows its action (annotation 1)")
    n, seed = len(clips.names), config.seed
    chance = float(np.mean([_share_of_positives(one) for one in actions]))
    again = partial(stats.bootstrap, cluster_N=clips.video_V, resamples=config.resamples, seed=seed)
    wap = weighted(actions)
    sap = sampled(actions, DRAWS, np.random.default_rng(seed))
    # One draw for each resample: the interval holds the draw's spread too, so it is not too narrow.
    one_draw = sampled(actions, 1, np.random.default_rng(seed))
    found = (
        Metric(MWAP, metrics.plain(wap, n), again(wap), n, chance),
        Metric(MWSAP, metrics.plain(sap, n), again(one_draw), n, chance),
    )
    return Result(
        data.name,
        "actions",
        found,
        protocol("actions", data, encoder)
        | {"names": [list(each) for each in data.names], "templates": list(data.templates)}
        | {"frames": "mean of probabilities", "draws": DRAWS, "seed": seed},
        pa.table(
            {
                "key": list(clips.names),
                "label": clips.action_V,
                "annotation": clips.annotation_V,
                "group": clips.video_V,
                "score": list(score_VA),
            }
        ),
        bad=images.bad,
        notes=(f"{len(actions)} of {len(clips.action_of)} actions are shown by some clip",),
        split=data.split,
        entry=data.entry,
        main=MWAP,
    )


def _share_of_positives(one: Ranked) -> float:
    """What a random order gives, about."""
    share_M = 1 / np.bincount(one.place_M)[one.place_M]
    return float(share_M[one.kind_M == POSITIVE].sum() / share_M.sum())
