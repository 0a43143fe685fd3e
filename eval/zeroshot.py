"""Zero-shot classification: classes become text features, images go to the nearest.

Shapes: N images, C classes, K names of classes (most have one), T templates, E embedding
dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from eval import metrics, stats, task
from eval.config import EvalConfig
from eval.evalset import EvalSample, EvalSet
from eval.features import Encoder, Features, unit
from eval.likelihood import prompt_scores
from eval.metrics import Weighted
from eval.prompts import fill
from eval.report import Metric, Result, Table
from eval.stats import Interval
from wit.errors import InputError

# Chosen templates and the class of each name, to features of images and classes and their scale.
Judged = Callable[[slice, NDArray[np.int64]], tuple[Features, Features, float]]
TextEncoder = Callable[[Sequence[str]], Features]

TIE = 1e-6  # scores this close are a tie, and ties count against the model
TIE_RULE = f"scores within {TIE:g} tie, and ties count against"
BLOCK = 4096  # images scored at once
NAME_ONLY, SINGLE = "{c}", "a photo of a {c}."  # the paper's steps before ensembles (figure 4)


def prompt_features(
    encode: TextEncoder, names: Sequence[str], templates: Sequence[str]
) -> Features:
    """Features of every name in every template: (K, T, E).

    All go through `encode` at once, which batches them over classes and templates.
    """
    prompts = [prompt for name in names for prompt in fill(templates, name)]
    return encode(prompts).reshape(len(names), len(templates), -1)


def class_features(prompt_KTE: Features, owner_K: NDArray[np.int64]) -> Features:
    """Class features by prompt ensembling in embedding space (CLIP paper, section 3.1.4).

    The normalised features of all prompts of a class are averaged and the mean is normalised
    again. Prompts that cancel out leave no direction; a zero vector then scores 0 everywhere.

    Args:
        owner_K: the class of each name, ascending, none left out.

    Returns:
        Features of unit length, (C, E).
    """
    name_KE = prompt_KTE.mean(axis=1, dtype=np.float64)
    first_C = np.searchsorted(owner_K, np.arange(owner_K[-1] + 1))
    count_C1 = np.diff(first_C, append=len(owner_K))[:, None]
    mean_CE: NDArray[np.float64] = np.add.reduceat(name_KE, first_C) / count_C1
    return unit(mean_CE)


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


def right_probability(
    image_NE: Features, class_CE: Features, label_N: NDArray[np.int64], scale: float
) -> NDArray[np.float64]:
    """The right class' share of the softmax over classes, for each image (N,).

    Args:
        scale: what cosines are multiplied by before the softmax.
    """
    found_N = np.empty(len(label_N))
    for start in range(0, len(label_N), BLOCK):
        label_B = label_N[start : start + BLOCK]
        share_BC = metrics.softmax(scale * (image_NE[start : start + BLOCK] @ class_CE.T))
        found_N[start : start + BLOCK] = share_BC[np.arange(len(label_B)), label_B]
    return found_N


def best_renaming(
    label_N: NDArray[np.int64], said_N: NDArray[np.int64], classes: int
) -> tuple[float, float]:
    """Accuracy, and the accuracy if the answers were renamed as well as can be.

    A large gap means that labels and names are in different orders, the commonest mistake.
    """
    count_CC = np.bincount(label_N * classes + said_N, minlength=classes**2)
    count_CC = count_CC.reshape(classes, classes)
    rows, columns = linear_sum_assignment(count_CC, maximize=True)
    n = len(label_N)
    return float(np.trace(count_CC)) / n, float(count_CC[rows, columns].sum()) / n


def chance_at(k: int, classes: int) -> float:
    """Expected top-k accuracy of a random order of the classes."""
    return min(k, classes) / classes


def run(data: EvalSet, encoder: Encoder, config: EvalConfig) -> Result:
    """Zero-shot metrics of a classification or multilabel set, and what prompts do to them."""
    features = encoder.images(data)
    samples = [data.samples[i] for i in features.kept_N]
    names = list(chain.from_iterable(data.names))
    owner_K = np.repeat(np.arange(len(data.names)), [len(each) for each in data.names])
    templates = list(data.templates)
    templates += [extra for extra in (NAME_ONLY, SINGLE) if extra not in templates]
    kind = _Multilabel if data.kind == "multilabel" else _Classification
    judged = (_by_likelihood if encoder.model.predictive else _by_cosine)(
        data, samples, names, templates, encoder
    )

    def judge(chosen: slice) -> tuple[_Classification | _Multilabel, Features]:
        image_NE, class_CE, scale = judged(chosen, owner_K)
        return kind(data, samples, image_NE, scale, config), class_CE

    ensemble, class_CE = judge(slice(len(data.templates)))
    measured, predictions = ensemble.measure(class_CE)

    def alone(i: int) -> Metric:
        one, class_CE = judge(slice(i, i + 1))
        return one.main(class_CE)

    tables = _prompt_tables(templates, len(data.templates), measured, data.metric, alone)
    protocol = task.protocol("zeroshot", data, encoder) | {
        "ties": TIE_RULE,
        "classes": [list(each) for each in data.names],
        "templates": list(data.templates),
    }
    if len(data.classes) == 2:
        protocol["positive"] = data.positive
    return Result(
        set=data.name,
        task="zeroshot",
        metrics=tuple(measured),
        protocol=protocol,
        predictions=predictions,
        bad=features.bad,
        notes=ensemble.notes(predictions),
        tables=tables,
        main=data.metric,
    )


def _by_cosine(
    data: EvalSet,
    samples: Sequence[EvalSample],
    names: Sequence[str],
    templates: Sequence[str],
    encoder: Encoder,
) -> Judged:
    """Features of images, of classes by the chosen templates, and the scale of their cosines."""
    image_NE, scale = encoder.images(data).image_NE, encoder.model.logit_scale
    prompt_KTE = encoder.cached(
        ["prompts", names, templates],
        lambda: prompt_features(
            lambda texts: encoder.texts(texts, f"{data.name}: prompts"), names, templates
        ),
    )
    return lambda chosen, owner_K: (image_NE, class_features(prompt_KTE[:, chosen], owner_K), scale)


def _by_likelihood(
    data: EvalSet,
    samples: Sequence[EvalSample],
    names: Sequence[str],
    templates: Sequence[str],
    encoder: Encoder,
) -> Judged:
    """Scores of classes stand for features of images, the unit matrix for those of classes."""
    score_NKT = encoder.cached(
        ["scores", data.fingerprint, data.split, encoder.preprocessing(), names, templates],
        lambda: prompt_scores(
            encoder, samples, names, templates, f"{data.name}: images with prompts"
        ),
    )

    def judged(chosen: slice, owner_K: NDArray[np.int64]) -> tuple[Features, Features, float]:
        first_C = np.searchsorted(owner_K, np.arange(owner_K[-1] + 1))
        count_C = np.diff(first_C, append=len(owner_K)).astype(np.float32)
        score_NC = np.add.reduceat(score_NKT[:, :, chosen].mean(axis=2), first_C, axis=1) / count_C
        return score_NC.astype(np.float32), np.eye(len(first_C), dtype=np.float32), 1.0

    return judged


def _prompt_tables(
    templates: Sequence[str],
    ensembled: int,
    measured: Sequence[Metric],
    main: str,
    alone: Callable[[int], Metric],
) -> tuple[Table, ...]:
    """The main metric of other prompts: the name, one sentence, each template by itself."""
    ensemble = next(metric for metric in measured if metric.name == main)
    rows = [
        ("class name only", alone(templates.index(NAME_ONLY))),
        (SINGLE, alone(templates.index(SINGLE))),
        (f"ensemble of {ensembled}", ensemble),
    ]
    columns = ("prompt", f"{main} %", "low %", "high %")
    tables = [
        Table(
            "prompts",
            columns,
            tuple((name, m.value, m.interval.low, m.interval.high) for name, m in rows),
        )
    ]
    if ensembled > 1:
        each = [alone(i) for i in range(ensembled)]
        value_T = np.array([metric.value for metric in each])
        spread = (
            ("worst template", float(value_T.min())),
            ("median template", float(np.median(value_T))),
            ("best template", float(value_T.max())),
            ("standard deviation of templates", float(value_T.std(ddof=1))),
        )
        tables.append(Table("each template alone", ("", f"{main} %"), spread))
        one = zip(templates[:ensembled], each, strict=True)
        lines = tuple((name, m.value, m.interval.low, m.interval.high) for name, m in one)
        tables.append(Table("templates", columns, lines, shown=False))
    return tuple(tables)


class _Judge:
    """What both kinds of set share: samples, their clusters, and how an interval is made."""

    def __init__(
        self,
        data: EvalSet,
        samples: Sequence[EvalSample],
        image_NE: Features,
        scale: float,
        config: EvalConfig,
    ) -> None:
        self.data, self.samples, self.image_NE = data, samples, image_NE
        self.scale, self.config = scale, config
        groups = [sample.meta.get("group", f"\0{i}") for i, sample in enumerate(samples)]
        _, self.cluster_N = np.unique(groups, return_inverse=True)
        self.grouped = len(np.unique(self.cluster_N)) < len(samples)

    def _bootstrap(self, value: Weighted) -> Interval:
        return stats.bootstrap(value, self.cluster_N, self.config.resamples, self.config.seed)

    def _metric(
        self, name: str, value: Weighted, chance: float, interval: Interval | None = None
    ) -> Metric:
        """A metric; its interval has a closed form, unless samples come in groups."""
        n = len(self.samples)
        if interval is None or self.grouped:
            interval = self._bootstrap(value)
        return Metric(name, metrics.plain(value, n), interval, n, chance)


class _Classification(_Judge):
    """One label for each image."""

    def measure(self, class_CE: Features) -> tuple[list[Metric], pa.Table]:
        label_N = self._labels()
        said = classify(self.image_NE, class_CE, label_N)
        columns = {
            "key": [sample.key for sample in self.samples],
            "label": label_N,
            "predicted": said.best_N,
            "rank": said.rank_N,
            "score": said.score_N,
            "probability": right_probability(self.image_NE, class_CE, label_N, self.scale),
        }
        if len(class_CE) == 2:
            columns["positive"] = self._positive(class_CE)
        if self.grouped:
            columns["group"] = self.cluster_N
        if self.data.metric == metrics.ROC_AUC and len(np.unique(label_N)) < 2:
            raise InputError(f"{self.data.path}: all images are of one class; ROC AUC needs both")
        wanted = [metrics.TOP_1, metrics.PER_CLASS]
        if len(class_CE) > 5:
            wanted.insert(1, metrics.TOP_5)
        if len(class_CE) == len(np.unique(label_N)) == 2:
            wanted.append(metrics.ROC_AUC)
        if self.data.metric not in wanted:
            wanted.append(self.data.metric)
        return [self._one(name, said, class_CE) for name in wanted], pa.table(columns)

    def main(self, class_CE: Features) -> Metric:
        """The metric that stands for the set, alone."""
        return self._one(
            self.data.metric, classify(self.image_NE, class_CE, self._labels()), class_CE
        )

    def notes(self, predictions: pa.Table) -> tuple[str, ...]:
        classes = len(self.data.classes)
        absent = classes - len(np.unique(self._labels()))
        notes = [f"{absent} of {classes} classes have no image"] if absent else []
        top, renamed = best_renaming(self._labels(), predictions["predicted"].to_numpy(), classes)
        if renamed > 0.5 and renamed > 3 * top and len(self.samples) >= 10 * classes:
            notes.append(
                f"labels may be in another order than the class names: top-1 is {100 * top:.1f}%,"
                f" and with the names in another order it would be {100 * renamed:.1f}%"
            )
        return tuple(notes)

    def _labels(self) -> NDArray[np.int64]:
        return np.array([sample.label for sample in self.samples], np.int64)

    def _positive(self, class_CE: Features) -> NDArray[np.float64]:
        """Cosine of the positive class, less that of the other."""
        one_E, other_E = class_CE[[self.data.positive, 1 - self.data.positive]].astype(np.float64)
        return np.asarray(self.image_NE @ (one_E - other_E), np.float64)

    def _one(self, name: str, said: Predictions, class_CE: Features) -> Metric:
        classes, label_N = len(class_CE), self._labels()
        if name == metrics.ROC_AUC:
            positive_N = label_N == self.data.positive
            return self._metric(name, metrics.roc_auc(self._positive(class_CE), positive_N), 0.5)
        if name == metrics.PER_CLASS:
            hit_N = said.rank_N == 0
            interval = stats.mean_of_classes(hit_N, label_N)
            value = metrics.mean_per_class(hit_N, label_N)
            return self._metric(name, value, chance_at(1, classes), interval)
        if name == metrics.TOP_1_5:
            both_N = ((said.rank_N < 1) * 0.5 + (said.rank_N < 5) * 0.5).astype(np.float64)
            chance = (chance_at(1, classes) + chance_at(5, classes)) / 2
            return self._metric(name, metrics.mean(both_N), chance)
        k = 5 if name == metrics.TOP_5 else 1
        hit_N = said.rank_N < k
        interval = stats.wilson(int(hit_N.sum()), len(hit_N))
        return self._metric(name, metrics.mean(hit_N), chance_at(k, classes), interval)


class _Multilabel(_Judge):
    """Any number of classes for each image; classes are ranked by their softmax."""

    def measure(self, class_CE: Features) -> tuple[list[Metric], pa.Table]:
        share_NC = self._shares(class_CE)
        found = [self._one(name, share_NC) for name in (metrics.MAP_11, metrics.MAP)]
        columns = {
            "key": [sample.key for sample in self.samples],
            "truth": list(self._truth().astype(np.int8)),
            "score": list(share_NC),
        }
        if self.grouped:
            columns["group"] = list(self.cluster_N)
        return found, pa.table(columns)

    def main(self, class_CE: Features) -> Metric:
        return self._one(self.data.metric, self._shares(class_CE))

    def notes(self, predictions: pa.Table) -> tuple[str, ...]:
        absent = int((~(self._truth() == 1).any(axis=0)).sum())
        return (f"{absent} of {len(self.data.classes)} classes are on no image",) if absent else ()

    def _truth(self) -> NDArray[np.int64]:
        truth_NC = np.array([sample.labels for sample in self.samples], np.int64)
        if not (truth_NC == 1).any():
            raise InputError(f"{self.data.path}: no image shows any class; check the labels")
        return truth_NC

    def _shares(self, class_CE: Features) -> NDArray[np.float64]:
        return metrics.softmax(self.scale * (self.image_NE @ class_CE.T))

    def _one(self, name: str, share_NC: NDArray[np.float64]) -> Metric:
        truth_NC = self._truth()
        value = metrics.mean_average_precision(share_NC, truth_NC, name == metrics.MAP_11)
        shown_NC = truth_NC == 1
        there_C = shown_NC.any(axis=0)
        shares = shown_NC.sum(axis=0) / np.maximum((truth_NC >= 0).sum(axis=0), 1)
        return self._metric(name, value, float(shares[there_C].mean()))
