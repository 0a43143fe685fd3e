"""Evaluation sets on disk: what there is to encode, checked before anything is encoded.

Three layouts are read, and are the same to all that follows: the community's webdataset folders
(eval/webdataset.py), class folders and CSV files (eval/folders.py). `open_set` tells which.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eval import folders, webdataset
from eval.evalset import EvalSample, EvalSet
from wit.errors import InputError

__all__ = ["EvalSample", "EvalSet", "open_set", "splits"]

ALSO_CALLED = {"val": ("val", "valid", "validation")}  # names of a split, in order of preference


def open_set(path: Path, split: str = "test", also: Sequence[str] = ()) -> EvalSet:
    """Open a split of a set of any layout and check it.

    A set that has test1, test2 ... in place of test comes in folds, and so does one that has
    train1, train2 ... in place of train, if train is asked for; all are then opened.

    Args:
        also: "train" and "val", to be attached where the set has them.

    Raises:
        InputError: the set is missing or broken; the message names the file.
    """
    there = splits(path)
    numbers = _folds(path, there, split, also)
    if not numbers:
        return _with_parts(path, split, also, there)
    parts = tuple(_with_parts(path, split, also, there, number) for number in numbers)
    return replace(parts[0], split=split, folds=parts)


def _with_parts(
    path: Path, split: str, also: Sequence[str], there: Sequence[str], number: str = ""
) -> EvalSet:
    """One split with its training data; in a fold, names with its number go first."""
    data = _open(path, split + number if split + number in there else split)
    for name in also:
        called = ALSO_CALLED.get(name, (name,))
        found = [other + n for n in (number, "") for other in called if other + n in there]
        if found and found[0] != data.split:
            part = _open(path, found[0])
            data = replace(data, train=part) if name == "train" else replace(data, val=part)
    return data


def _folds(path: Path, there: Sequence[str], split: str, also: Sequence[str]) -> list[str]:
    """The numbers of a set's folds, in order; none for a set without folds.

    Raises:
        InputError: a fold has no part of its own where the others do.
    """
    named = [name for name in (split, *also) if name not in there]
    found = {name: [f"{n}" for n in _numbers(name, there)] for name in named}
    if split in there and "train" not in found:
        return []
    found = {name: numbers for name, numbers in found.items() if len(numbers) > 1}
    numbers = found.get(split) or found.get("train", [])
    for name, other in found.items():
        if other != numbers:
            odd = sorted(set(numbers) ^ set(other))[0]
            raise InputError(f"{path}: fold {odd} has not both {split} and {name}; add it")
    return numbers


def _numbers(name: str, there: Sequence[str]) -> list[int]:
    matches = [re.fullmatch(rf"{re.escape(name)}([1-9]\d*)", other) for other in there]
    return sorted(int(match[1]) for match in matches if match)


def splits(path: Path) -> list[str]:
    """The splits that a set has; none where its layout has no splits, or it isn't there."""
    if not path.exists():
        return []
    if path.suffix.lower() == ".csv":
        return folders.splits_of_csv(path)
    return webdataset.splits(path) or folders.splits_of_folder(path)


def _open(path: Path, split: str) -> EvalSet:
    if path.is_file() and path.suffix.lower() == ".csv":
        return folders.open_csv(path, split)
    if not path.is_dir():
        raise InputError(f"{path}: no such evaluation set; check the path after --set")
    if webdataset.splits(path) or any((path / mark).exists() for mark in webdataset.MARKS):
        return webdataset.open_webdataset(path, split)
    return folders.open_class_folder(path, split)
