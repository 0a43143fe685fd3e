"""Evaluation sets as people keep them: a folder for each class, or a CSV file."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from eval.evalset import METRIC, NO_META, EvalSample, EvalSet, Kind, file_sha256, name_of
from eval.prompts import DEFAULT_TEMPLATES
from eval.webdataset import IMAGE_EXTENSIONS
from wit.errors import InputError

FILE_EXTENSIONS = (*IMAGE_EXTENSIONS, "avif", "gif", "bmp", "tif", "tiff")  # all of wit.image
SPLIT = re.compile(r"(train|val|valid|validation|test)([1-9]\d*)?")  # the number is of a fold
SEPARATOR = "|"  # between the classes of one image in a CSV file
TRUTH = {"label": "classification", "labels": "multilabel", "caption": "retrieval"}
MOST_CLASSES = 100_000


def _visible(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.name[0] != ".")


def splits_of_folder(path: Path) -> list[str]:
    """The splits of a folder whose only sub-folders are splits; none for a plain class folder."""
    names = [child.name for child in _visible(path) if child.is_dir()]
    return names if names and all(map(SPLIT.fullmatch, names)) else []


def open_class_folder(path: Path, split: str) -> EvalSet:
    """A folder with one sub-folder of images for each class, or such a folder for each split.

    Raises:
        InputError: no class folder, an empty one, or a file that isn't an image.
    """
    there = splits_of_folder(path)
    if there and split not in there:
        raise InputError(
            f"{path / split}: no such split (there: {', '.join(there)}); check --split"
        )
    root = path / split if there else path
    folders = [child for child in _visible(root) if child.is_dir()]
    if not folders:
        raise InputError(
            f"{root}: not an evaluation set: neither classnames.txt nor class sub-folders"
        )
    classes = [folder.name for folder in folders]
    for other in there:
        others = [child.name for child in _visible(path / other) if child.is_dir()]
        if others != classes:
            odd = sorted(set(others) ^ set(classes))[0]
            raise InputError(f"{path}: class {odd} is not in both {split} and {other}")
    samples, digest = [], hashlib.sha256()
    for label, folder in enumerate(folders):
        images = _visible(folder)
        if not images:
            raise InputError(f"{folder}: a class folder without images")
        for image in images:
            if image.suffix.lower()[1:] not in FILE_EXTENSIONS:
                raise InputError(f"{image}: not an image ({', '.join(FILE_EXTENSIONS)}); remove it")
            key = f"{folder.name}/{image.name}"
            digest.update(f"{key}\n{file_sha256(image)}\n".encode())
            samples.append(EvalSample(key, image, 0, image.stat().st_size, label))
    names = tuple(name.replace("_", " ") for name in classes)
    return EvalSet(
        name=name_of(path),
        path=path,
        kind="classification",
        split=split if there else "all",
        samples=tuple(samples),
        classes=names,
        names=tuple((name,) for name in names),
        templates=DEFAULT_TEMPLATES,
        fingerprint=digest.hexdigest()[:16],
    )


def splits_of_csv(path: Path) -> list[str]:
    """The values of the column `split`; none where there is no such column."""
    _, rows = _read_csv(path)
    return sorted({row["split"] for _, row in rows if "split" in row})


def open_csv(path: Path, split: str) -> EvalSet:
    """A CSV file with a column `image` (a path, from the file's folder) and one of truth.

    `label` is a class name, `labels` are class names with | between them, `caption` is a
    caption, a row for each. `split` chooses rows; every other column goes into `meta`. Classes
    are the names in all rows of the file, sorted.

    Raises:
        InputError: a column or an image is missing; the message names file and line.
    """
    kind, rows = _read_csv(path)
    there = {row["split"] for _, row in rows if "split" in row}
    if there and split not in there:
        raise InputError(
            f"{path}: no row of split {split} (there: {', '.join(sorted(there))}); check --split"
        )
    classes: list[str] = []
    if kind == "classification":
        classes = sorted({row["label"] for _, row in rows})
    elif kind == "multilabel":
        classes = sorted({name for _, row in rows for name in _names(row["labels"])})
    if len(classes) > MOST_CLASSES:
        raise InputError(f"{path}: {len(classes)} different labels; are these captions?")
    chosen = [(number, row) for number, row in rows if not there or row["split"] == split]
    samples, digest = [], hashlib.sha256()
    for sample in _csv_samples(path, kind, chosen, {name: i for i, name in enumerate(classes)}):
        truth = [sample.label, sample.labels, sample.captions]
        digest.update(f"{sample.key}\n{file_sha256(sample.file)}\n{truth}\n".encode())
        samples.append(sample)
    return EvalSet(
        name=name_of(path),
        path=path,
        kind=kind,
        split=split if there else "all",
        samples=tuple(samples),
        classes=tuple(classes),
        names=tuple((name,) for name in classes),
        templates=DEFAULT_TEMPLATES if classes else (),
        metric=METRIC[kind],
        fingerprint=digest.hexdigest()[:16],
    )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(SEPARATOR) if name.strip()]


def _read_csv(path: Path) -> tuple[Kind, list[tuple[int, dict[str, str]]]]:
    """The kind of set, and the rows with their line numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8: {error}") from None
    found = [column for column in TRUTH if column in columns]
    if "image" not in columns or len(found) != 1:
        raise InputError(
            f"{path}: needs the column image and one of {', '.join(TRUTH)};"
            f" it has {', '.join(columns) or 'none'}"
        )
    if not rows:
        raise InputError(f"{path}: no row below the column names")
    for number, row in rows:
        if None in row or None in row.values():
            raise InputError(f"{path}: line {number} has another number of columns than line 1")
        if not row["image"] or (found[0] != "labels" and not row[found[0]].strip()):
            raise InputError(f"{path}: line {number} has an empty image or {found[0]}")
    kinds: dict[str, Kind] = {
        "label": "classification", "labels": "multilabel", "caption": "retrieval"}  # fmt: skip
    return kinds[found[0]], rows


def _csv_samples(
    path: Path, kind: Kind, rows: list[tuple[int, dict[str, str]]], index: dict[str, int]
) -> Iterator[EvalSample]:
    captions: dict[str, list[str]] = {}
    first: dict[str, tuple[int, dict[str, str]]] = {}
    for number, row in rows:
        key = row["image"]
        if key in first and kind != "retrieval":
            raise InputError(f"{path}: line {number}: image {key} occurs twice")
        first.setdefault(key, (number, row))
        if kind == "retrieval":
            captions.setdefault(key, []).append(row["caption"].strip())
    for key, (number, row) in first.items():
        image = path.parent / key
        if not image.is_file():
            raise InputError(f"{path}: line {number}: no image {image}")
        rest = {k: v for k, v in row.items() if k not in (*TRUTH, "image", "split")}
        shown = set(_names(row["labels"])) if kind == "multilabel" else set()
        yield EvalSample(
            key=key,
            file=image,
            offset=0,
            size=image.stat().st_size,
            label=index[row["label"]] if kind == "classification" else -1,
            labels=tuple(int(name in shown) for name in index) if kind == "multilabel" else (),
            captions=tuple(captions.get(key, ())),
            meta=rest or NO_META,
        )
