"""What an evaluation set is, whatever its layout on disk was."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from eval.metrics import MAP, MEAN_R1, TOP_1
from wit.errors import InputError
from wit.shard import read_member

Kind = Literal["classification", "multilabel", "retrieval"]
METRIC: Mapping[Kind, str] = {
    "classification": TOP_1, "multilabel": MAP, "retrieval": MEAN_R1}  # fmt: skip
NO_META: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class EvalSample:
    """One image of a set: where its bytes are, and what is true of it.

    Attributes:
        label: index into the classes; -1 in sets of other kinds.
        labels: in a multilabel set, for each class 1 (shown), 0 (not shown) or -1 (not judged:
            left out of that class' precision, as VOC's difficult objects are).
        captions: of a retrieval set.
        meta: what else the set says of the image: further columns of a CSV file, the fields of
            a shard's json member. `group` there names a cluster of samples that are not
            independent, such as the frames of one video.
    """

    key: str
    file: Path
    offset: int
    size: int
    label: int = -1
    labels: tuple[int, ...] = ()
    captions: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=lambda: NO_META)

    def read(self) -> bytes:
        """The encoded image."""
        with self.file.open("rb") as file:
            return read_member(file, self.offset, self.size)


@dataclass(frozen=True)
class EvalSet:
    """One split of a set, without its images; `train` and `val` are the other splits.

    Attributes:
        classes: as the set names them; a label is a position here.
        names: what prompts call each class: one name or several. Equal to `classes` unless the
            registry knows better.
        templates: sentences with {c} for the name.
        metric: the one number that stands for the set in a suite; a name of eval/metrics.py.
        positive: the class whose score is ranked for ROC AUC, in sets of two classes.
        entry: the set's name in the registry, and `group` its suite there; empty for a set of
            your own.
        fingerprint: of the images, labels and captions; not of names and templates.
        train, val: other splits of the same set where a task asked for them and they exist.
            They have `train` and `val` of None.
        folds: where the set comes in several official splits (STL-10's ten folds, UCF101's three
            splits), one set for each, with its own `train` and `val`; the set itself is then the
            first of them. What is reported is the mean over folds.
    """

    name: str
    path: Path
    kind: Kind
    split: str
    samples: tuple[EvalSample, ...] = field(repr=False)
    classes: tuple[str, ...] = ()
    names: tuple[tuple[str, ...], ...] = ()
    templates: tuple[str, ...] = ()
    metric: str = TOP_1
    positive: int = 1
    entry: str = ""
    group: str = ""
    fingerprint: str = ""
    train: EvalSet | None = field(default=None, repr=False)
    val: EvalSet | None = field(default=None, repr=False)
    folds: tuple[EvalSet, ...] = field(default=(), repr=False)


def name_of(path: Path) -> str:
    """The name of a set: of its folder or file, a link's own name rather than its target's."""
    name = path.stem if path.suffix.lower() == ".csv" else path.name
    return path.resolve().name if name in ("", "..") else name


def file_sha256(path: Path) -> str:
    """Raises InputError where the file can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}; mend or remove it") from None
