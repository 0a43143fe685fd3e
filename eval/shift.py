"""The task `shift`: a shifted set beside its reference, which is ImageNet in the paper.

Figures 13 and 14 of the CLIP paper. On the same images four ways to answer are compared: by the
shifted set's own class names; by the reference's names, whose best score stands for each class
of the set; by a probe fitted to the reference (adaptation); and, on the reference's images of
these classes, by the reference's names (class-subset accuracy), which is the x axis of effective
robustness. Classes of the reference are found by name; sets with coarser classes bring a mapping.

Shapes: N samples, C classes of the reference, G classes of the shifted set.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eval import linear_probe, metrics, probe, registry, robustness, sets, stats
from eval.metrics import Weighted
from eval.report import Metric, Result, Table
from eval.task import protocol
from eval.zeroshot import class_features, prompt_features
from wit.errors import ConfigError, InputError

if TYPE_CHECKING:
    from eval.config import EvalConfig
    from eval.evalset import EvalSet
    from eval.features import Encoder, Features

OWN, NAMES, FITTED, SUBSET = (
    "own names", "names of the reference", "fitted to the reference", "reference, these classes"
)  # fmt: skip


def run(data: EvalSet, encoder: Encoder, config: EvalConfig) -> Result:
    """All four accuracies, and the paired differences between the first three.

    Raises:
        ConfigError: no --shift.reference.
        InputError: a class that is not one of the reference's, and no mapping.
    """
    reference = _reference(config)
    groups = _groups(data, reference, config.shift.mapping)
    images = encoder.images(data)
    samples = [data.samples[i] for i in images.kept_N]
    label_N = linear_probe.labels(samples, data.kind)
    reference_CE = zero_shot_classifier(reference, encoder)
    score = {
        OWN: images.image_NE @ zero_shot_classifier(data, encoder).T,
        NAMES: robustness.pooled(images.image_NE @ reference_CE.T, groups),
    }
    if reference.train is not None:
        train, validation, _ = linear_probe.learnable(reference, encoder, config)
        device = encoder.model.device.type
        _, fitted = probe.probe(train, validation, len(reference.classes), device=device)
        _, x_ND = linear_probe.of_split(data, encoder, config.probe.features)
        score[FITTED] = robustness.pooled(fitted.scores(x_ND), groups)
    hit = {name: probe.ranks(score_NG, label_N) == 0 for name, score_NG in score.items()}
    cluster_N = linear_probe.clusters(samples)
    found = [_metric(name, hit_N, cluster_N, data, config) for name, hit_N in hit.items()]
    subset = list(chain.from_iterable(groups))
    beside = encoder.images(reference)
    truth_N = linear_probe.labels([reference.samples[i] for i in beside.kept_N], reference.kind)
    hit_M = robustness.in_subset(beside.image_NE @ reference_CE.T, truth_N, subset)
    n = len(hit_M)
    interval = stats.wilson(int(hit_M.sum()), n)
    found.append(Metric(SUBSET, float(hit_M.mean()), interval, n, 1 / len(set(subset))))
    columns: dict[str, Any] = {"key": [sample.key for sample in samples], "label": label_N}
    columns["rank"] = probe.ranks(score[OWN], label_N)
    columns |= {f"hit, {name}": hit_N for name, hit_N in hit.items()}
    return Result(
        data.name,
        "shift",
        tuple(found),
        protocol("shift", data, encoder)
        | {
            "reference": reference.fingerprint,
            "reference_names": [list(names) for names in reference.names],
            "names": [list(names) for names in data.names],
            "templates": [list(data.templates), list(reference.templates)],
            "groups": [list(group) for group in groups],
            "features": f"{config.probe.features}-projection",
        },
        pa.table(columns),
        bad=images.bad,
        notes=() if FITTED in hit else ("no split train in the reference: nothing is fitted",),
        tables=(_differences(hit, cluster_N, config),),
        split=data.split,
        entry=data.entry,
        main=OWN,
    )


def zero_shot_classifier(data: EvalSet, encoder: Encoder) -> Features:
    """Class features (C, E) of a set's names and templates, from the cache."""
    names = list(chain.from_iterable(data.names))
    owner_K = np.repeat(np.arange(len(data.names)), [len(each) for each in data.names])
    prompt_KTE = encoder.cached(
        ["prompts", names, list(data.templates)],
        lambda: prompt_features(
            lambda texts: encoder.texts(texts, f"{data.name}: prompts"), names, data.templates
        ),
    )
    return class_features(prompt_KTE, owner_K)


def _reference(config: EvalConfig) -> EvalSet:
    if config.shift.reference is None:
        raise ConfigError("task shift compares with a reference set: give --shift.reference DIR")
    data = sets.open_set(config.shift.reference, config.split, ("train", "val"))
    if config.protocol == "paper":
        data = registry.apply(registry.read(config.registry), data)
    return data


def _groups(data: EvalSet, reference: EvalSet, mapping: Path | None) -> list[list[int]]:
    """For each class of the set, the classes of the reference that it stands for."""
    place = {_plain(name): i for i, name in enumerate(reference.classes)}
    for i, names in enumerate(reference.names):
        place |= {_plain(name): i for name in names if _plain(name) not in place}
    wanted = {name: [name] for name in data.classes}
    if mapping is not None:
        wanted = _read_mapping(mapping)
        for name in data.classes:
            if name not in wanted:
                raise InputError(f"{mapping}: class {name!r} of {data.path} is not in it; add it")
    groups = []
    for name in data.classes:
        for other in wanted[name]:
            if _plain(other) not in place:
                raise InputError(
                    f"{mapping or data.path}: {other!r} is no class of {reference.path}; map"
                    " classes to the reference's with --shift.mapping FILE"
                )
        groups.append([place[_plain(other)] for other in wanted[name]])
    return groups


def _read_mapping(path: Path) -> dict[str, list[str]]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(found, dict) or not all(
        isinstance(group, list) and group and all(isinstance(name, str) for name in group)
        for group in found.values()
    ):
        raise InputError(f'{path}: must be of the form {{"class": ["class of the reference"]}}')
    return found


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold().strip()


def _metric(
    name: str,
    hit_N: NDArray[np.bool_],
    cluster_N: NDArray[np.int64],
    data: EvalSet,
    config: EvalConfig,
) -> Metric:
    n = len(hit_N)
    interval = stats.wilson(int(hit_N.sum()), n)
    if len(np.unique(cluster_N)) < n:
        interval = stats.bootstrap(metrics.mean(hit_N), cluster_N, config.resamples, config.seed)
    return Metric(name, float(hit_N.mean()), interval, n, 1 / len(data.classes))


def _differences(
    hit: dict[str, NDArray[np.bool_]], cluster_N: NDArray[np.int64], config: EvalConfig
) -> Table:
    """What own names and adaptation change, on the same images."""
    base: Weighted = metrics.mean(hit[NAMES])
    rows = []
    for name in (OWN, FITTED):
        if name in hit:
            found = stats.paired_bootstrap(
                base, metrics.mean(hit[name]), cluster_N, config.resamples, config.seed
            )
            rows.append((f"{name}", found.difference, *found.interval[:2], found.p))
    columns = (f"beside {NAMES}", "difference %", "low %", "high %", "p")
    return Table("what names and adaptation change", columns, tuple(rows))
