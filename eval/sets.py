"""Evaluation sets on disk: what there is to encode, checked before anything is encoded.

Two layouts are read.

A webdataset folder, as CLIP_benchmark writes and publishes them:

    classnames.txt                          one class a line; the label is the line's index
    zeroshot_classification_templates.txt   one template a line, with {c}
    dataset_type.txt                        "retrieval"; absent for classification
    test/nshards.txt                        number of shards
    test/0.tar, test/1.tar ...              KEY.webp|png|jpg|jpeg beside KEY.cls (a label)
                                            or KEY.txt (captions, one a line)

A class folder: one sub-folder of images for each class, named for the class, with nothing else
in it but hidden files.

Opening a set reads tar headers, labels and captions, not images; each sample then knows the
file and the offset of its image, so that both layouts are the same to all that follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from eval.prompts import DEFAULT_TEMPLATES, read_lines, read_templates
from wit.errors import InputError
from wit.shard import Member, read_groups, read_member

IMAGE_EXTENSIONS = ("webp", "png", "jpg", "jpeg")  # CLIP_benchmark's order of preference
FILE_EXTENSIONS = (*IMAGE_EXTENSIONS, "avif", "gif", "bmp", "tif", "tiff")  # all of wit.image
MAX_TEXT_BYTES = 1024 * 1024


@dataclass(frozen=True)
class EvalSample:
    """One image of a set: where its bytes are, and what is true of it."""

    key: str
    file: Path
    offset: int
    size: int
    label: int = -1  # index into the classes; -1 in a retrieval set
    captions: tuple[str, ...] = ()

    def read(self) -> bytes:
        """The encoded image."""
        with self.file.open("rb") as file:
            return read_member(file, self.offset, self.size)


@dataclass(frozen=True)
class EvalSet:
    """A set, without its images."""

    name: str
    path: Path
    kind: str  # "classification" or "retrieval"
    split: str
    samples: tuple[EvalSample, ...] = field(repr=False)
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    fingerprint: str = ""  # of the images, labels and captions; not of names and templates


def open_set(path: Path, split: str = "test") -> EvalSet:
    """Open a set of either layout and check it.

    Raises:
        InputError: the set is missing or broken; the message names the file.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such evaluation set; check the path after --set")
    marks = ("classnames.txt", "dataset_type.txt", "zeroshot_classification_templates.txt", split)
    if any((path / mark).exists() for mark in marks):
        return _open_webdataset(path, split)
    return _open_class_folder(path)


def _open_class_folder(path: Path) -> EvalSet:
    folders = sorted(child for child in path.iterdir() if child.is_dir() and child.name[0] != ".")
    if not folders:
        raise InputError(
            f"{path}: not an evaluation set: neither classnames.txt nor class sub-folders"
        )
    samples, digest = [], hashlib.sha256()
    for label, folder in enumerate(folders):
        images = sorted(file for file in folder.iterdir() if file.name[0] != ".")
        if not images:
            raise InputError(f"{folder}: a class folder without images")
        for image in images:
            if image.suffix.lower()[1:] not in FILE_EXTENSIONS:
                raise InputError(f"{image}: not an image ({', '.join(FILE_EXTENSIONS)}); remove it")
            key = f"{folder.name}/{image.name}"
            digest.update(f"{key}\n{_file_sha256(image)}\n".encode())
            samples.append(EvalSample(key, image, 0, image.stat().st_size, label))
    return EvalSet(
        name=path.resolve().name,
        path=path,
        kind="classification",
        split="all",
        samples=tuple(samples),
        classes=tuple(folder.name.replace("_", " ") for folder in folders),
        templates=DEFAULT_TEMPLATES,
        fingerprint=digest.hexdigest()[:16],
    )


def _open_webdataset(path: Path, split: str) -> EvalSet:
    kind = _dataset_type(path)
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    if kind == "classification":
        classes = read_lines(path / "classnames.txt", "class names")
        templates = read_templates(path / "zeroshot_classification_templates.txt")
    samples: list[EvalSample] = []
    digest, seen = hashlib.sha256(), set[str]()
    for shard in _shards(path / split):
        digest.update(f"{shard.name}\n{_file_sha256(shard)}\n".encode())
        for sample in _read_shard(shard, kind, len(classes)):
            if sample.key in seen:
                raise InputError(f"{shard}: key {sample.key} occurs twice in the set")
            seen.add(sample.key)
            samples.append(sample)
    if not samples:
        raise InputError(f"{path / split}: no sample in any shard")
    return EvalSet(
        name=path.resolve().name,
        path=path,
        kind=kind,
        split=split,
        samples=tuple(samples),
        classes=classes,
        templates=templates,
        fingerprint=digest.hexdigest()[:16],
    )


def _dataset_type(path: Path) -> str:
    file = path / "dataset_type.txt"
    if not file.exists():
        return "classification"
    kind = read_lines(file, "the type of the set")[0]
    if kind not in ("classification", "retrieval"):
        raise InputError(f"{file}: type {kind!r} is neither classification nor retrieval")
    return kind


def _shards(folder: Path) -> list[Path]:
    file = folder / "nshards.txt"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such split; check --split")
    text = read_lines(file, "the number of shards")[0]
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"{file}: {text!r} is not a number of shards; write one integer")
    shards = [folder / f"{i}.tar" for i in range(int(text))]
    for shard in shards:
        if not shard.is_file():
            raise InputError(f"{shard}: missing, though {file} announces {text} shards")
    return shards


def _read_shard(shard: Path, kind: str, classes: int) -> Iterator[EvalSample]:
    """The samples of one shard, in order; labels and captions are read, images are not."""
    with shard.open("rb") as file:
        for key, members in read_groups(shard):
            image = next((members[e] for e in IMAGE_EXTENSIONS if e in members), None)
            if image is None:
                raise InputError(f"{shard}: sample {key} has no image (webp, png, jpg, jpeg)")
            extension = "txt" if kind == "retrieval" else "cls"
            if extension not in members:
                raise InputError(f"{shard}: sample {key} has no .{extension} beside its image")
            text = _text(file, members[extension], shard, f"{key}.{extension}")
            if kind == "retrieval":
                captions = tuple(line.strip() for line in text.split("\n") if line.strip())
                if not captions:
                    raise InputError(f"{shard}: {key}.txt holds no caption")
                yield EvalSample(key, shard, image.offset, image.size, captions=captions)
            else:
                label = _label(text, shard, key, classes)
                yield EvalSample(key, shard, image.offset, image.size, label)


def _text(file: BinaryIO, member: Member, shard: Path, name: str) -> str:
    if member.size > MAX_TEXT_BYTES:
        raise InputError(f"{shard}: {name} has {member.size} bytes, too many for a label or text")
    try:
        return read_member(file, member.offset, member.size).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InputError(f"{shard}: {name} is not UTF-8 text") from None


def _label(text: str, shard: Path, key: str, classes: int) -> int:
    if not text.isascii() or not text.removeprefix("-").isdigit():
        raise InputError(f"{shard}: {key}.cls holds {text[:40]!r}, which is not a label")
    label = int(text)
    if not 0 <= label < classes:
        raise InputError(
            f"{shard}: {key}.cls is label {label}, out of range for the {classes} lines of"
            " classnames.txt; the list of classes doesn't belong to these images"
        )
    return label


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}; mend or remove it") from None
