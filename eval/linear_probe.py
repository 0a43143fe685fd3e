"""The task `probe`: a logistic regression on frozen features (CLIP paper, appendix A.3).

Shapes: N samples, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eval import metrics, probe, stats
from eval.probe import Classifier, Held, Labelled, Selected
from eval.report import Metric, Result, Table
from eval.task import protocol
from wit.errors import InputError

if TYPE_CHECKING:
    from eval.config import EvalConfig
    from eval.evalset import EvalSample, EvalSet
    from eval.features import Encoder, Features


def run(data: EvalSet, encoder: Encoder, config: EvalConfig) -> Result:
    """Choose the penalty on validation data, fit all training data, and test once.

    Raises:
        InputError: the set has no training split.
    """
    train, validation, origin = learnable(data, encoder, config)
    samples, x_ND = of_split(data, encoder, config.probe.features)
    held = Held(x_ND, labels(samples, data.kind))
    measure = probe.measure_of(data.metric, data.positive)
    device = encoder.model.device.type
    selected, classifier = probe.probe(train, validation, len(data.classes), measure, device)
    score_NC = classifier.scores(held.x_ND)
    cluster_N = clusters(samples)
    names = [data.metric]
    if data.kind == "classification":
        names = list(dict.fromkeys([data.metric, metrics.TOP_1, metrics.PER_CLASS]))
    return Result(
        data.name,
        "probe",
        tuple(measured(name, score_NC, held.label, cluster_N, data, config) for name in names),
        protocol("probe", data, encoder) | recipe(data, config, origin) | {"metric": data.metric},
        _predictions(data, samples, score_NC, held.label),
        bad=encoder.images(data).bad,
        notes=_notes(selected, classifier),
        tables=(
            Table(
                "penalties tried",
                ("lambda", f"{data.metric} on validation data %"),
                selected.tried,
                shown=False,
            ),
        ),
        split=data.split,
        entry=data.entry,
        main=data.metric,
    )


def learnable(
    data: EvalSet, encoder: Encoder, config: EvalConfig
) -> tuple[Labelled, Labelled, str]:
    """Training data, validation data, and where the latter came from.

    Raises:
        InputError: no training split.
    """
    if data.train is None:
        raise InputError(f"{data.path}: a probe learns from a split train, which this set lacks")
    samples, x_ND = of_split(data.train, encoder, config.probe.features)
    train = Labelled(x_ND, labels(samples, data.kind))
    if data.val is not None:
        samples, x_ND = of_split(data.val, encoder, config.probe.features)
        return train, Labelled(x_ND, labels(samples, data.kind)), "split val"
    share = config.probe.validation
    train, validation = probe.split_off(train, share, config.seed)
    return train, validation, f"{share:g} of split train, seed {config.seed}"


def recipe(data: EvalSet, config: EvalConfig, origin: str) -> dict[str, Any]:
    """What decides a probe's numbers."""
    return {
        "features": f"{config.probe.features}-projection",
        "train": data.train.fingerprint if data.train else "",
        "validation": origin,
        "validation_data": data.val.fingerprint if data.val else "",
        "solver": "L-BFGS, at most 1,000 steps",
    }


def of_split(part: EvalSet, encoder: Encoder, kind: str) -> tuple[list[EvalSample], Features]:
    """The samples of a split that could be read, and their features as the model gave them."""
    found = encoder.images(part)
    x_ND: Features = np.ascontiguousarray(found.pre_ND if kind == "pre" else found.post_NE)
    return [part.samples[i] for i in found.kept_N], x_ND


def labels(samples: Sequence[EvalSample], kind: str) -> NDArray[np.int64]:
    """Labels (N,), or in a multilabel set truth (N, C) of 1, 0 and -1."""
    if kind == "multilabel":
        return np.array([sample.labels for sample in samples], np.int64)
    return np.array([sample.label for sample in samples], np.int64)


def clusters(samples: Sequence[EvalSample]) -> NDArray[np.int64]:
    """The cluster of each sample: those of one `group` are not independent."""
    groups = [sample.meta.get("group", f"\0{i}") for i, sample in enumerate(samples)]
    cluster_N: NDArray[np.int64] = np.unique(groups, return_inverse=True)[1]
    return cluster_N


def measured(
    name: str,
    score_NC: NDArray[np.float64],
    label: NDArray[np.int64],
    cluster_N: NDArray[np.int64],
    data: EvalSet,
    config: EvalConfig,
) -> Metric:
    """One metric of a classifier's scores, with its interval and chance."""
    value, n = probe.weighted(name, score_NC, label, data.positive), len(label)
    alone = len(np.unique(cluster_N)) == n
    if alone and name in (metrics.TOP_1, metrics.TOP_5):
        interval = stats.wilson(round(metrics.plain(value, n) * n), n)
    elif alone and name == metrics.PER_CLASS:
        interval = stats.mean_of_classes(probe.ranks(score_NC, label) == 0, label)
    else:
        interval = stats.bootstrap(value, cluster_N, config.resamples, config.seed)
    return Metric(
        name, metrics.plain(value, n), interval, n, chance_of(name, label, score_NC.shape[1])
    )


def chance_of(name: str, label: NDArray[np.int64], classes: int) -> float:
    """What guessing gives."""
    if name in (metrics.MAP, metrics.MAP_11):
        return float((label == 1).mean())
    if name == metrics.ROC_AUC:
        return 0.5
    first, five = 1 / classes, min(5, classes) / classes
    return {metrics.TOP_5: five, metrics.TOP_1_5: (first + five) / 2}.get(name, first)


def _predictions(
    data: EvalSet,
    samples: Sequence[EvalSample],
    score_NC: NDArray[np.float64],
    label: NDArray[np.int64],
) -> pa.Table:
    columns: dict[str, Any] = {"key": [sample.key for sample in samples]}
    if data.kind == "multilabel":
        columns |= {"truth": list(label.astype(np.int8)), "score": list(score_NC)}
    else:
        columns |= {
            "label": label,
            "predicted": score_NC.argmax(axis=1),
            "rank": probe.ranks(score_NC, label),
            "probability": metrics.softmax(score_NC)[np.arange(len(label)), label],
        }
        if score_NC.shape[1] == 2:
            positive = data.positive
            columns["positive"] = score_NC[:, positive] - score_NC[:, 1 - positive]
    if len(np.unique(clusters(samples))) < len(samples):
        columns["group"] = clusters(samples)
    return pa.table(columns)


def _notes(selected: Selected, classifier: Classifier) -> tuple[str, ...]:
    notes = [f"lambda {classifier.penalty:.3g}, of {len(selected.tried)} tried"]
    if not (selected.converged and classifier.converged):
        notes.append("not every fit reached its minimum in 1,000 steps")
    if selected.tried[0][0] == classifier.penalty or selected.tried[-1][0] == classifier.penalty:
        notes.append("the best lambda is at the end of the range")
    return tuple(notes)
