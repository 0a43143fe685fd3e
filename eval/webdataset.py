"""Evaluation folders as CLIP_benchmark writes and publishes them.

    classnames.txt                          one class a line; the label is the line's index
    zeroshot_classification_templates.txt   one template a line, with {c}
    dataset_type.txt                        "retrieval" or "multilabel"; absent: classification
    test/nshards.txt                        number of shards; other splits beside it
    test/0.tar, test/1.tar ...              KEY.webp|png|jpg|jpeg beside
                                            KEY.cls (a label, from 0),
                                            KEY.npy (multilabel: a number for each class) or
                                            KEY.txt (captions, one a line)

Opening a set reads tar headers, labels and captions, not images.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, get_args

import numpy as np

from eval.evalset import METRIC, NO_META, EvalSample, EvalSet, Kind, file_sha256, name_of
from eval.prompts import read_lines, read_templates
from wit.errors import InputError
from wit.shard import Member, read_groups, read_member

CLASSES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
TYPE = "dataset_type.txt"
MARKS = (CLASSES, TEMPLATES, TYPE)
IMAGE_EXTENSIONS = ("webp", "png", "jpg", "jpeg")  # CLIP_benchmark's order of preference
LABEL_EXTENSION = {"classification": "cls", "multilabel": "npy", "retrieval": "txt"}
MAX_TEXT_BYTES = 1024 * 1024


def splits(path: Path) -> list[str]:
    """The splits that the folder holds."""
    return sorted(file.parent.name for file in path.glob("*/nshards.txt"))


def open_webdataset(path: Path, split: str) -> EvalSet:
    """One split of a webdataset folder.

    Raises:
        InputError: a file is missing or broken; the message names it.
        CorpusError: a shard is not a sound tar.
    """
    kind = _dataset_type(path)
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    if kind != "retrieval":
        classes = read_lines(path / CLASSES, "class names")
        templates = read_templates(path / TEMPLATES)
    samples: list[EvalSample] = []
    digest, seen = hashlib.sha256(), set[str]()
    for shard in _shards(path, split):
        digest.update(f"{shard.name}\n{file_sha256(shard)}\n".encode())
        for sample in _read_shard(shard, kind, len(classes)):
            if sample.key in seen:
                raise InputError(f"{shard}: key {sample.key} occurs twice in the set")
            seen.add(sample.key)
            samples.append(sample)
    if not samples:
        raise InputError(f"{path / split}: no sample in any shard")
    return EvalSet(
        name=name_of(path),
        path=path,
        kind=kind,
        split=split,
        samples=tuple(samples),
        classes=classes,
        names=tuple((name,) for name in classes),
        templates=templates,
        metric=METRIC[kind],
        fingerprint=digest.hexdigest()[:16],
    )


def _dataset_type(path: Path) -> Kind:
    file = path / TYPE
    if not file.exists():
        return "classification"
    text = read_lines(file, "the type of the set")[0]
    for kind in get_args(Kind):
        if text == kind:
            found: Kind = kind
            return found
    raise InputError(f"{file}: type {text!r} is neither {', '.join(get_args(Kind))}")


def _shards(path: Path, split: str) -> list[Path]:
    folder = path / split
    file = folder / "nshards.txt"
    if not folder.is_dir():
        there = ", ".join(splits(path)) or "none"
        raise InputError(f"{folder}: no such split (there: {there}); check --split")
    text = read_lines(file, "the number of shards")[0]
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"{file}: {text!r} is not a number of shards; write one integer")
    shards = [folder / f"{i}.tar" for i in range(int(text))]
    for shard in shards:
        if not shard.is_file():
            raise InputError(f"{shard}: missing, though {file} announces {text} shards")
    return shards


def _read_shard(shard: Path, kind: Kind, classes: int) -> Iterator[EvalSample]:
    """The samples of one shard, in order; labels and captions are read, images are not."""
    extension = LABEL_EXTENSION[kind]
    with shard.open("rb") as file:
        for key, members in read_groups(shard):
            image = next((members[e] for e in IMAGE_EXTENSIONS if e in members), None)
            if image is None:
                raise InputError(f"{shard}: sample {key} has no image (webp, png, jpg, jpeg)")
            if extension not in members:
                raise InputError(f"{shard}: sample {key} has no .{extension} beside its image")
            data = _small(file, members[extension], shard, f"{key}.{extension}")
            label = -1
            labels: tuple[int, ...] = ()
            captions: tuple[str, ...] = ()
            if kind == "retrieval":
                captions = _captions(data, shard, key)
            elif kind == "multilabel":
                labels = _labels(data, shard, key, classes)
            else:
                label = _label(_text(data, shard, f"{key}.cls"), shard, key, classes)
            meta = NO_META
            if "json" in members:
                meta = _meta(_small(file, members["json"], shard, f"{key}.json"), shard, key)
            yield EvalSample(key, shard, image.offset, image.size, label, labels, captions, meta)


def _small(file: BinaryIO, member: Member, shard: Path, name: str) -> bytes:
    if member.size > MAX_TEXT_BYTES:
        raise InputError(f"{shard}: {name} has {member.size} bytes, too many for a label or text")
    return read_member(file, member.offset, member.size)


def _text(data: bytes, shard: Path, name: str) -> str:
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InputError(f"{shard}: {name} is not UTF-8 text") from None


def _captions(data: bytes, shard: Path, key: str) -> tuple[str, ...]:
    """One caption a line; the community's writer spells a line break within one as `\\n`."""
    lines = _text(data, shard, f"{key}.txt").split("\n")
    captions = tuple(line.replace("\\n", " ").strip() for line in lines if line.strip())
    if not captions:
        raise InputError(f"{shard}: {key}.txt holds no caption")
    return captions


def _labels(data: bytes, shard: Path, key: str, classes: int) -> tuple[int, ...]:
    """A .npy of one number for each class: 1 shown, 0 not shown, -1 not judged."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError):
        raise InputError(f"{shard}: {key}.npy is not an array of plain numbers") from None
    if array.shape != (classes,) or not np.isin(array, (-1, 0, 1)).all():
        raise InputError(
            f"{shard}: {key}.npy must hold 1, 0 or -1 for each of the {classes} lines of"
            f" {CLASSES}; it has shape {array.shape}"
        )
    return tuple(int(value) for value in array)


def _label(text: str, shard: Path, key: str, classes: int) -> int:
    if not text.isascii() or not text.removeprefix("-").isdigit():
        raise InputError(f"{shard}: {key}.cls holds {text[:40]!r}, which is not a label")
    label = int(text)
    if not 0 <= label < classes:
        raise InputError(
            f"{shard}: {key}.cls is label {label}, out of range for the {classes} lines of"
            f" {CLASSES}; the list of classes doesn't belong to these images"
        )
    return label


def _meta(data: bytes, shard: Path, key: str) -> Mapping[str, str]:
    try:
        fields = json.loads(data)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise InputError(f"{shard}: {key}.json is not a JSON object")
    return {name: str(value) for name, value in fields.items()}
