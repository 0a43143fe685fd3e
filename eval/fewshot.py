"""The task `fewshot`: linear probes on a few training images of each class, beside zero-shot.

Figures 6 and 7 of the CLIP paper: the score at 1, 2, 4, 8 and 16 images of each class, and how
many images a probe needs to match the zero-shot classifier. The images are drawn at random from
the training split, with a seed of its own for each draw; those of fewer shots are among those of
more. The penalty is chosen on validation data, never on test data: see eval/probe.py.

Shapes: N samples, C classes, S numbers of shots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eval import linear_probe, metrics, probe, stats
from eval.evalset import EvalSet
from eval.probe import Held, Labelled
from eval.report import Metric, Result, Table
from eval.task import protocol
from wit.errors import InputError

if TYPE_CHECKING:
    from eval.config import EvalConfig
    from eval.features import Encoder

MOST_VALIDATION_SHOTS = 4  # of a few-shot validation split
CURVE, EFFICIENCY = "zero-shot and few-shot", "data efficiency of zero-shot"  # tables


@dataclass(frozen=True)
class Shot:
    """One probe: how many images of each class, which draw, and what came of it."""

    shots: int
    draw: int
    penalty: float
    value: float


def draw(label_N: NDArray[np.int64], shots: int, seed: int) -> NDArray[np.int64]:
    """Positions of `shots` samples of each class; the same seed's fewer shots are among them.

    Raises:
        InputError: a class has fewer samples.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(label_N):
        member_M = rng.permutation(np.flatnonzero(label_N == label))
        if len(member_M) < shots:
            raise InputError(
                f"class {label} has {len(member_M)} training images, too few for {shots} shots;"
                " leave these shots out"
            )
        chosen.append(member_M[:shots])
    return np.sort(np.concatenate(chosen))


def curve(
    train: Labelled,
    validation: Labelled,
    held: Held,
    classes: int,
    shots: Sequence[int],
    seeds: Sequence[int],
    metric: str = metrics.TOP_1,
    positive: int = 1,
    few_validation: bool = False,
    device: str = "cpu",
) -> list[Shot]:
    """A probe for every number of shots and every seed.

    Args:
        few_validation: choose the penalty on as many validation images of each class as shots,
            at most four, in place of all of them.
    """
    measure = probe.measure_of(metric, positive)
    found = []
    for seed in seeds:
        for count in shots:
            few = _taken(train, draw(train.label, count, seed))
            chooser = validation
            if few_validation:
                most = min(count, MOST_VALIDATION_SHOTS)
                chooser = _taken(validation, _at_most(validation.label, most, seed))
            selected = probe.select(few, chooser, classes, measure, device)
            (classifier,) = probe.fit(few, [selected.penalty], classes, device)
            found.append(Shot(count, seed, selected.penalty, classifier.test(held, measure)))
    return found


def effective_shots(
    target: float, shots: Sequence[float], value_S: Sequence[float]
) -> float | None:
    """Images of each class at which the curve reaches `target`, between log-linear points.

    Below the first point its first segment is prolonged, so that less than one image can be the
    answer. None where the curve stays below; where it falls and rises, the first crossing.

    Args:
        shots: ascending; the last may be all training images of a class, on average.

    Raises:
        ValueError: fewer than two points.
    """
    if len(shots) < 2:
        raise ValueError("a curve has at least two points")
    low, high = value_S[0], value_S[1]
    if low >= target and high <= low:
        return float(shots[0])  # no rise to prolong: one image is enough, less is unknown
    for i in range(len(shots) - 1):
        low, high = value_S[i], value_S[i + 1]
        if high >= target or low >= target:
            share = (target - low) / (high - low)
            return float(shots[i] * (shots[i + 1] / shots[i]) ** share)
    return None


def _taken(data: Labelled, chosen: NDArray[np.int64]) -> Labelled:
    return Labelled(data.x_ND[chosen], data.label[chosen])


def _at_most(label_N: NDArray[np.int64], shots: int, seed: int) -> NDArray[np.int64]:
    """As `draw`, taking what there is of a class that has fewer."""
    rng = np.random.default_rng(seed)
    members = [rng.permutation(np.flatnonzero(label_N == label)) for label in np.unique(label_N)]
    return np.sort(np.concatenate([member_M[:shots] for member_M in members]))


def run(data: EvalSet, encoder: Encoder, config: EvalConfig) -> Result:
    """Probes of every number of shots, the fully supervised one, and zero-shot beside them.

    Raises:
        InputError: no training split, or a class with too few images for any of the shots.
    """
    from eval import zeroshot

    train, validation, origin = linear_probe.learnable(data, encoder, config)
    samples, x_ND = linear_probe.of_split(data, encoder, config.probe.features)
    held = Held(x_ND, linear_probe.labels(samples, data.kind))
    shots, least = _shots(train, data, config)
    seeds = [config.seed + i for i in range(config.probe.draws)]
    few_validation = config.probe.few_validation == "shots"
    device, classes = encoder.model.device.type, len(data.classes)
    found = curve(
        train, validation, held, classes, shots, seeds, data.metric, data.positive,
        few_validation, device,
    )  # fmt: skip
    measure = probe.measure_of(data.metric, data.positive)
    _, full = probe.probe(train, validation, classes, measure, device)
    full_value = full.test(held, measure)
    zero = zeroshot.run(data, encoder, config).main_metric if encoder.reads_text else None
    per_class = (len(train.label) + len(validation.label)) / classes
    points = [(float(count), float(_of(count, found).mean())) for count in shots]
    if per_class > shots[-1]:
        points.append((per_class, full_value))
    matched = None if zero is None else _matched(zero, points)
    chance = linear_probe.chance_of(data.metric, held.label, classes)
    missing = [count for count in config.probe.shots if count not in shots]
    return Result(
        data.name,
        "fewshot",
        tuple(_metric(count, found, data, held, chance) for count in shots),
        protocol("fewshot", data, encoder)
        | linear_probe.recipe(data, config, origin)
        | {"metric": data.metric, "shots": shots, "seeds": seeds}
        | {"few_validation": config.probe.few_validation},
        pa.Table.from_pylist(
            [{"key": f"{shot.shots} shots, draw {shot.draw}"} | asdict(shot) for shot in found]
        ),
        notes=(
            *(f"{count} shots left out: a class has {least} images" for count in missing),
            *([] if zero is None else [_note(matched)]),
        ),
        tables=(
            _curve_table(data.metric, zero, found, shots, per_class, full_value),
            *([] if zero is None else [_efficiency(matched)]),
        ),
        split=data.split,
        entry=data.entry,
        main=f"{shots[-1]}-shot {data.metric}",
    )


def _curve_table(
    metric: str,
    zero: Metric | None,
    found: Sequence[Shot],
    shots: Sequence[int],
    per_class: float,
    full: float,
) -> Table:
    return Table(
        CURVE,
        ("images a class", f"{metric} %", "sd over draws %"),
        (
            *((("zero-shot", zero.value, None),) if zero else ()),
            *(_row(count, found) for count in shots),
            (f"all, {per_class:.4g}", full, None),
        ),
    )


def _shots(train: Labelled, data: EvalSet, config: EvalConfig) -> tuple[list[int], int]:
    """The numbers of shots that every class has images for, and how many the smallest has."""
    least = int(np.bincount(train.label, minlength=len(data.classes)).min())
    shots = [count for count in sorted(set(config.probe.shots)) if count <= least]
    if not shots:
        raise InputError(
            f"{data.path}: a class has {least} training images, fewer than any of --probe.shots"
        )
    return shots, least


def _matched(zero: Metric, points: Sequence[tuple[float, float]]) -> float | None:
    """Images of each class that a probe needs to match zero-shot."""
    return None if len(points) < 2 else effective_shots(zero.value, *zip(*points, strict=True))


def _note(matched: float | None) -> str:
    found = f"{matched:.2g} images a class" if matched else "no number of images tried"
    return f"zero-shot is matched by {found}"


def _efficiency(matched: float | None) -> Table:
    """The point of figure 7; no number where none that was tried is enough."""
    return Table(EFFICIENCY, ("", "images a class"), (("as good as zero-shot", matched),))


def _of(count: int, found: Sequence[Shot]) -> NDArray[np.float64]:
    return np.array([shot.value for shot in found if shot.shots == count])


def _metric(count: int, found: Sequence[Shot], data: EvalSet, held: Held, chance: float) -> Metric:
    value_R = _of(count, found)
    name = f"{count}-shot {data.metric}"
    interval = stats.t_interval(value_R)._replace(method="t over draws")
    return Metric(name, float(value_R.mean()), interval, len(held.label), chance)


def _row(count: int, found: Sequence[Shot]) -> tuple[object, ...]:
    value_R = _of(count, found)
    return (count, float(value_R.mean()), float(value_R.std(ddof=1)))
