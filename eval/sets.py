"""Evaluation sets on disk: what there is to encode, checked before anything is encoded.

Three layouts are read, and are the same to all that follows: the community's webdataset folders
(eval/webdataset.py), class folders and CSV files (eval/folders.py). `open_set` tells which.
"""

from __future__ import annotations

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

    Args:
        also: "train" and "val", to be attached where the set has them.

    Raises:
        InputError: the set is missing or broken; the message names the file.
    """
    data = _open(path, split)
    there = splits(path)
    for name in also:
        found = [other for other in ALSO_CALLED.get(name, (name,)) if other in there]
        if found and found[0] != data.split:
            part = _open(path, found[0])
            data = replace(data, train=part) if name == "train" else replace(data, val=part)
    return data


def splits(path: Path) -> list[str]:
    """The splits that a set has; none where its layout has no splits."""
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
