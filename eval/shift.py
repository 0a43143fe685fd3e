"""The task `shift`: a shifted set beside its reference, which is ImageNet in the paper.

Figures 13 and 14 of the CLIP paper. On the same images four ways to answer are compared: by the
shifted set's own class names; by the reference's names, whose best score stands for each class
of the set; by a probe fitted to the reference (adaptation); and, on the reference's images of
these classes, by the reference's names (class-subset accuracy), which is the x axis of effective
robustness. Classes of the reference are found by name; sets with coarser classes bring a mapping.
The probe is fitted once for all shifted sets of a checkpoint, and kept in the cache.

Where samples are frames of a clip (`group`) and one of each clip is marked as its `anchor`, as in
ImageNet-Vid and YTBB, a number is the mean of pm-0 and pm-10 (table 16), which are given beside it.

Shapes: N samples, V clips, C classes of the reference, G classes of the shifted set, D features.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eval import linear_probe, metrics, probe, registry, robustness, sets, stats
from eval.fits import Floats
from eval.metrics import Weighted
from eval.report import Metric, Result, Table
from eval.task import protocol
from eval.zeroshot import class_features, prompt_features
from wit.errors import ConfigError, InputError

if TYPE_CHECKING:
    from eval.config import EvalConfig
    from eval.evalset import EvalSample, EvalSet
    from eval.features import Encoder, Features

OWN, NAMES, FITTED, SUBSET = (
    "own names", "names of the reference", "fitted to the reference", "reference, these classes"
)  # fmt: skip
REFERENCE = "the reference set itself"
ANCHOR = {"1": True, "0": False}
PROBE_VERSION = 1  # rises when a probe of the same data would come out otherwise


def run(data: EvalSet, encoder: Encoder, config: EvalConfig) -> Result:
    """All four accuracies, and the paired differences between the first three.

    Raises:
        ConfigError: no --shift.reference.
        InputError: a class that is not one of the reference's, and no mapping.
    """
    reference = reference_of(config)
    groups = _groups(data, reference, config.shift.mapping)
    images = encoder.images(data)
    samples = [data.samples[i] for i in images.kept_N]
    label_N = linear_probe.labels(samples, data.kind)
    reference_CE = zero_shot_classifier(reference, encoder)
    score = {
        OWN: images.image_NE @ zero_shot_classifier(data, encoder).T,
        NAMES: robustness.pooled(images.image_NE @ reference_CE.T, groups),
    }
    beside = encoder.images(reference)
    truth_M = linear_probe.labels([reference.samples[i] for i in beside.kept_N], reference.kind)
    on_reference: dict[str, Floats] = {NAMES: (beside.image_NE @ reference_CE.T).astype(np.float64)}
    if reference.train is not None:
        fitted = _fitted(reference, encoder, config)
        _, x_ND = linear_probe.of_split(data, encoder, config.probe.features)
        _, x_MD = linear_probe.of_split(reference, encoder, config.probe.features)
        score[FITTED] = robustness.pooled(fitted(x_ND), groups)
        on_reference[FITTED] = fitted(x_MD)
    hit = {name: probe.ranks(score_NG, label_N) == 0 for name, score_NG in score.items()}
    clips = _clips(samples, str(data.path))
    found = [
        metric for name in hit for metric in _metrics(name, hit[name], samples, clips, data, config)
    ]
    subset = sorted(set(chain.from_iterable(groups)))
    found.append(_in_subset(on_reference[NAMES], truth_M, subset))
    columns: dict[str, Any] = {"key": [sample.key for sample in samples], "label": label_N}
    columns["rank"] = probe.ranks(score[OWN], label_N)
    columns |= {f"hit, {name}": hit_N for name, hit_N in hit.items()}
    if clips is not None:
        columns |= {"group": clips.clip_N, "anchor": clips.anchor_N}
    protocol_clips = {} if clips is None else {"clips": "mean of pm-0 and pm-10"}
    return Result(
        data.name,
        "shift",
        tuple(found),
        protocol("shift", data, encoder)
        | _recipe(data, reference, groups)
        | {"features": f"{config.probe.features}-projection"}
        | protocol_clips,
        pa.table(columns),
        bad=images.bad,
        notes=() if FITTED in hit else ("no split train in the reference: nothing is fitted",),
        tables=(
            _differences(hit, linear_probe.clusters(samples), clips, config),
            _reference_table(on_reference, truth_M, subset),
        ),
        split=data.split,
        entry=data.entry,
        main=OWN,
    )


def _recipe(data: EvalSet, reference: EvalSet, groups: Sequence[Sequence[int]]) -> dict[str, Any]:
    return {
        "reference": reference.fingerprint,
        "reference_names": [list(names) for names in reference.names],
        "names": [list(names) for names in data.names],
        "templates": [list(data.templates), list(reference.templates)],
        "groups": [list(group) for group in groups],
    }


def _in_subset(score_MC: Floats, truth_M: NDArray[np.int64], subset: list[int]) -> Metric:
    """Accuracy on the reference, among the classes that the set has."""
    hit_M = robustness.in_subset(score_MC, truth_M, subset)
    interval = stats.wilson(int(hit_M.sum()), len(hit_M))
    return Metric(SUBSET, float(hit_M.mean()), interval, len(hit_M), 1 / len(subset))


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


def _fitted(
    reference: EvalSet, encoder: Encoder, config: EvalConfig
) -> Callable[[Features], NDArray[np.float64]]:
    """Scores (N, C) by the probe that is fitted to the reference's split train."""
    about = linear_probe.recipe(reference, config, "")
    share = [config.probe.validation, config.seed] if reference.val is None else []

    def fit() -> NDArray[np.float64]:
        train, validation, _ = linear_probe.learnable(reference, encoder, config)
        device = encoder.model.device.type
        _, found = probe.probe(train, validation, len(reference.classes), device=device)
        return np.vstack([found.weight_DC, found.bias_C])

    both_DC = encoder.cached(["probe", PROBE_VERSION, about, share, encoder.preprocessing()], fit)
    return lambda x_ND: x_ND.astype(np.float64) @ both_DC[:-1] + both_DC[-1]


class Clips(NamedTuple):
    """The clip of each frame, and whether the frame is its clip's anchor."""

    clip_N: NDArray[np.int64]
    anchor_N: NDArray[np.bool_]

    def of(self, hit_N: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Hits of the clips: pm-0 and pm-10."""
        return robustness.pm_k(hit_N, self.clip_N, self.anchor_N)


def _clips(samples: Sequence[EvalSample], where: str) -> Clips | None:
    """None where no sample has a column `anchor`.

    Raises:
        InputError: a frame without a clip, or a clip without exactly one anchor.
    """
    if not any("anchor" in sample.meta for sample in samples):
        return None
    for sample in samples:
        if "group" not in sample.meta or sample.meta.get("anchor") not in ANCHOR:
            raise InputError(
                f"{where}: {sample.key} needs a group (its clip) and an anchor, 1 or 0"
            )
    names = [sample.meta["group"] for sample in samples]
    anchor_N = np.array([ANCHOR[sample.meta["anchor"]] for sample in samples])
    clips_V, clip_N = np.unique(names, return_inverse=True)
    anchors_V = np.bincount(clip_N, weights=anchor_N)
    for name, count in zip(clips_V, anchors_V, strict=True):
        if count != 1:
            raise InputError(f"{where}: clip {name} has {count:.0f} anchors; each clip has one")
    return Clips(clip_N, anchor_N)


def reference_of(config: EvalConfig) -> EvalSet:
    """The reference set, checked; opened once, however many sets are held against it.

    Raises:
        ConfigError: no --shift.reference.
    """
    if config.shift.reference is None:
        raise ConfigError("task shift compares with a reference set: give --shift.reference DIR")
    known = config.registry if config.protocol == "paper" else None
    return _opened(config.shift.reference, config.split, config.protocol == "paper", known)


@lru_cache(maxsize=1)
def _opened(path: Path, split: str, published: bool, known: Path | None) -> EvalSet:
    data = sets.open_set(path, split, ("train", "val"))
    return registry.apply(registry.read(known), data) if published else data


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


def _metrics(
    name: str,
    hit_N: NDArray[np.bool_],
    samples: Sequence[EvalSample],
    clips: Clips | None,
    data: EvalSet,
    config: EvalConfig,
) -> list[Metric]:
    """The accuracy of one way to answer; of clips, the mean of pm-0 and pm-10, and both."""
    chance = 1 / len(data.classes)
    if clips is None:
        n, cluster_N = len(hit_N), linear_probe.clusters(samples)
        interval = stats.wilson(int(hit_N.sum()), n)
        if len(np.unique(cluster_N)) < n:
            value = metrics.mean(hit_N)
            interval = stats.bootstrap(value, cluster_N, config.resamples, config.seed)
        return [Metric(name, float(hit_N.mean()), interval, n, chance)]
    pm_0_V, pm_10_V = clips.of(hit_N)
    n = len(pm_0_V)
    both = metrics.mean((pm_0_V.astype(float) + pm_10_V) / 2)
    interval = stats.bootstrap(both, np.arange(n), config.resamples, config.seed)
    found = [Metric(name, metrics.plain(both, n), interval, n, chance)]
    for k, hit_V in ((0, pm_0_V), (10, pm_10_V)):
        interval = stats.wilson(int(hit_V.sum()), n)
        found.append(Metric(f"{name}, pm-{k}", float(hit_V.mean()), interval, n, chance))
    return found


def _differences(
    hit: dict[str, NDArray[np.bool_]],
    cluster_N: NDArray[np.int64],
    clips: Clips | None,
    config: EvalConfig,
) -> Table:
    """What own names and adaptation change, on the same images or clips."""
    value = {name: hit_N.astype(float) for name, hit_N in hit.items()}
    if clips is not None:
        value = {name: np.mean(clips.of(hit_N), axis=0) for name, hit_N in hit.items()}
        cluster_N = np.arange(len(value[NAMES]))
    base: Weighted = metrics.mean(value[NAMES])
    rows = []
    for name in (OWN, FITTED):
        if name in value:
            found = stats.paired_bootstrap(
                base, metrics.mean(value[name]), cluster_N, config.resamples, config.seed
            )
            rows.append((name, found.difference, *found.interval[:2], found.p))
    columns = (f"beside {NAMES}", "difference %", "low %", "high %", "p")
    return Table("what names and adaptation change", columns, tuple(rows))


def _reference_table(
    score: dict[str, Floats], truth_M: NDArray[np.int64], subset: Sequence[int]
) -> Table:
    """The reference itself, by its names and by the probe, of all classes and of the set's."""
    rows = [
        (name, float((probe.ranks(score_MC, truth_M) == 0).mean()),
         float(robustness.in_subset(score_MC, truth_M, subset).mean()))
        for name, score_MC in score.items()
    ]  # fmt: skip
    return Table(REFERENCE, ("", "all classes %", "these classes %"), tuple(rows))
