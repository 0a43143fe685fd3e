"""The task `bias`: what a model says of groups of people (CLIP paper, section 7.1, tables 3 to 7).

Two questions, both by group, where a group is any value of a column of the set (`race`, `gender`,
`age` of FairFace, or several together). How accurate is zero-shot classification in each group, and
how far apart are the best and the worst? And, given a list of labels that you supply, some of them
denigrating, how often is a picture of each group given one of those?

A share in a group smaller than `--bias.least` images is not reported: it would say more about
chance, and about a few people, than about the model. The images stay in the total.

Shapes: N images, C labels, G groups.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from scipy.stats import chi2_contingency

from eval import linear_probe, probe, shift, stats
from eval.prompts import fill
from eval.report import Metric, Result, Table
from eval.stats import Interval
from eval.task import protocol
from wit.config import Section, explain
from wit.errors import InputError

if TYPE_CHECKING:
    from eval.config import EvalConfig
    from eval.evalset import EvalSample, EvalSet
    from eval.features import Encoder


class Labels(Section):
    """Labels of a denigration study, as a TOML file gives them."""

    neutral: list[str] = Field(min_length=1)
    """Labels that are no harm."""
    harmful: dict[str, list[str]] = Field(min_length=1)
    """Labels that are, by kind, such as crime = ["thief"]."""
    templates: list[str] = Field(default=["a photo of a {c}."], min_length=1)
    """Sentences with {c} for the label."""


class Share(NamedTuple):
    """A share of the images of one group."""

    group: str
    value: float
    interval: Interval
    n: int


def by_group(hit_N: NDArray[np.bool_], group_N: Sequence[str], least: int) -> list[Share]:
    """Share of hits in each group of at least `least` images, by name."""
    group = np.array(group_N)
    found = []
    for name in sorted(set(group_N)):
        mine = hit_N[group == name]
        if len(mine) >= least:
            hits = int(mine.sum())
            interval = stats.wilson(hits, len(mine))
            found.append(Share(name, hits / len(mine), interval, len(mine)))
    return found


def difference(shares: Sequence[Share], hit_N: NDArray[np.bool_], group_N: Sequence[str]) -> float:
    """p that all reported groups share one rate (chi squared); 1 where nothing could differ."""
    group = np.array(group_N)
    table = [[int(hit_N[group == s.group].sum()), int((~hit_N[group == s.group]).sum())]
             for s in shares]  # fmt: skip
    counts = np.array(table)
    if len(counts) < 2 or (counts.sum(axis=0) == 0).any():
        return 1.0
    return float(chi2_contingency(counts, correction=False).pvalue)


def read_labels(path: Path) -> Labels:
    """The labels of a TOML file.

    Raises:
        InputError: unreadable, or not of the form of `Labels`.
    """
    try:
        return Labels.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}; mend that line") from None
    except ValidationError as error:
        raise InputError(f"{path}: {explain(Labels, error)}") from None


def groups_of(samples: Sequence[EvalSample], columns: Sequence[str], where: str) -> list[str]:
    """The group of each image: the values of the columns, joined.

    Raises:
        InputError: an image has no such column.
    """
    found = []
    for sample in samples:
        missing = [name for name in columns if not sample.meta.get(name)]
        if missing:
            raise InputError(
                f"{where}: {sample.key} has no {missing[0]}, a column of --bias.groups"
            )
        found.append(", ".join(sample.meta[name] for name in columns))
    return found


def run(data: EvalSet, encoder: Encoder, config: EvalConfig) -> Result:
    """Accuracy by group and, with `--bias.labels`, rates of harmful labels by group.

    Raises:
        InputError: groups or labels are missing or broken.
    """
    images = encoder.images(data)
    samples = [data.samples[i] for i in images.kept_N]
    group_N = groups_of(samples, config.bias.groups, str(data.path))
    label_N = linear_probe.labels(samples, data.kind)
    rank_N = probe.ranks(images.image_NE @ shift.zero_shot_classifier(data, encoder).T, label_N)
    hit_N, n, least = rank_N == 0, len(samples), config.bias.least
    chance = 1 / len(data.classes)
    total = Metric("top-1", float(hit_N.mean()), stats.wilson(int(hit_N.sum()), n), n, chance)
    shares = by_group(hit_N, group_N, least)
    found = [
        total,
        *(Metric(f"top-1, {s.group}", s.value, s.interval, s.n, chance) for s in shares),
    ]
    tables = [_table("accuracy by group", shares, difference(shares, hit_N, group_N))]
    columns: dict[str, Any] = {
        "key": [sample.key for sample in samples],
        "label": label_N,
        "rank": rank_N,
        "people": group_N,
    }
    about: dict[str, Any] = {"groups": list(config.bias.groups), "least": least}
    if config.bias.labels is not None:
        labels = read_labels(config.bias.labels)
        said = _said(labels, encoder, images.image_NE)
        columns["said"] = said
        about["labels"] = labels.model_dump()
        for kind, harmful in labels.harmful.items():
            given_N = np.isin(said, harmful)
            rates = by_group(given_N, group_N, least)
            tables.append(_table(f"labelled {kind}", rates, difference(rates, given_N, group_N)))
            interval = stats.wilson(int(given_N.sum()), n)
            every = len(labels.neutral) + sum(map(len, labels.harmful.values()))
            found.append(
                Metric(f"labelled {kind}", float(given_N.mean()), interval, n, len(harmful) / every)
            )
    small = sorted(set(group_N) - {s.group for s in shares})
    return Result(
        data.name,
        "bias",
        tuple(found),
        protocol("bias", data, encoder)
        | about
        | {"names": [list(each) for each in data.names], "templates": list(data.templates)},
        pa.table(columns),
        bad=images.bad,
        notes=(f"not reported, fewer than {least} images: {'; '.join(small)}",) if small else (),
        tables=tuple(tables),
        split=data.split,
        entry=data.entry,
        main="top-1",
    )


def _said(labels: Labels, encoder: Encoder, image_NE: NDArray[np.float32]) -> list[str]:
    """The label of each image."""
    names = [*labels.neutral, *(name for group in labels.harmful.values() for name in group)]
    prompts = [prompt for name in names for prompt in fill(labels.templates, name)]
    text_CTE = encoder.cached(["labels", prompts], lambda: encoder.texts(prompts))
    mean_CE = text_CTE.reshape(len(names), len(labels.templates), -1).mean(axis=1)
    mean_CE /= np.maximum(np.linalg.norm(mean_CE, axis=1, keepdims=True), 1e-12)
    return [names[i] for i in (image_NE @ mean_CE.T).argmax(axis=1)]


def _table(title: str, shares: Sequence[Share], p: float) -> Table:
    rows: list[tuple[Any, ...]] = [(s.group, s.value, s.interval.low, s.interval.high, s.n)
                                   for s in shares]  # fmt: skip
    if len(shares) > 1:
        values = [s.value for s in shares]
        rows.append(("largest difference", max(values) - min(values), None, None, None))
    return Table(f"{title} (p {p:.2g})", ("group", "share %", "low %", "high %", "images"),
                 tuple(rows))  # fmt: skip
