"""The sets of the paper, and whether the data at hand is what they were.

eval/published/sets.toml lists them: classes, split sizes, metric, prompts. A set on disk that
bears one of the names is checked against it before anything is encoded, because most scores that
don't reproduce come from here: other prompts, another split, labels in another order. Its classes
are found by name, wherever they stand in its own list, and never by position.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from eval.evalset import EvalSet, Kind, name_of
from eval.prompts import read_lines
from wit.config import Section, explain
from wit.errors import InputError

PUBLISHED = Path(__file__).parent / "published" / "sets.toml"
SYNONYMS = "|"  # between several names of one class
Metric = Literal["top-1", "mean per class", "mean of top-1 and top-5", "ROC AUC", "11-point mAP",
                 "mAP", "mean R@1"]  # fmt: skip


class Entry(Section):
    """One set as it was published."""

    title: str
    """Name for people."""
    group: str = "own"
    """Suite it belongs to: paper, shift or retrieval."""
    kind: Kind = "classification"
    """What is known of each image."""
    classes: int | None = Field(None, ge=1)
    """Number of classes."""
    train: int | None = Field(None, ge=1)
    """Images for training, validation included."""
    test: int | None = Field(None, ge=1)
    """Images that are evaluated."""
    fold_train: list[int] = Field(default=[])
    """Images for training in each fold, validation included, where the paper reports the mean over
    several official splits."""
    fold_test: list[int] = Field(default=[])
    """Images that are evaluated in each fold, where that differs."""
    metric: Metric = "top-1"
    """The number that is reported."""
    names: str | None = None
    """File of class names beside the registry; of a subset, if it lists more than `classes`."""
    templates: list[str] = Field(default=[])
    """Prompts, with {c} for the class; of a retrieval set, one, with {c} for the caption."""
    templates_of: str | None = None
    """Another entry whose templates are used."""
    aliases: list[str] = Field(default=[])
    """Other names of the set."""
    note: str = ""
    """What to know about it."""


class Registry:
    """The entries of a registry file by name."""

    def __init__(self, path: Path, entries: Mapping[str, Entry]) -> None:
        self.path, self.entries = path, entries
        self._by_name = {
            _plain(alias): name
            for name, entry in entries.items()
            for alias in (name, entry.title, *entry.aliases)
        }

    def match(self, set_name: str) -> str | None:
        """The entry that a folder's or file's name stands for, if any.

        The community's prefixes and suffixes (`wds_`, `vtab-`, `_test`) are looked past.
        """
        short = re.sub(r"^wds|test$", "", _plain(set_name))
        tried = (_plain(set_name), short, short.removeprefix("vtab"))
        return next((self._by_name[name] for name in tried if name in self._by_name), None)

    def templates(self, name: str) -> tuple[str, ...]:
        """The prompts of an entry."""
        entry = self.entries[name]
        return tuple(entry.templates if entry.templates_of is None
                     else self.entries[entry.templates_of].templates)  # fmt: skip

    def names(self, name: str) -> tuple[tuple[str, ...], ...]:
        """The classes of an entry, each with its names; empty where none are listed."""
        file = self.entries[name].names
        if file is None:
            return ()
        lines = read_lines(self.path.parent / file, "class names")
        return tuple(tuple(part.strip() for part in line.split(SYNONYMS)) for line in lines)


def read(path: Path | None = None) -> Registry:
    """Read a registry file; the paper's without a path.

    Raises:
        InputError: missing, not TOML, or an entry that is not of the form of `Entry`.
    """
    path = path or PUBLISHED
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}; check --registry") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}; mend that line") from None
    entries = {}
    for name, values in raw.items():
        try:
            entries[name] = Entry.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{path}: {name}: {explain(Entry, error)}") from None
    for name, entry in entries.items():
        if entry.templates_of is not None and entry.templates_of not in entries:
            raise InputError(f"{path}: {name}: templates_of names no entry: {entry.templates_of}")
    return Registry(path, entries)


def find(registry: Registry, folder: Path) -> dict[str, Path | None]:
    """Where each entry's set is in a folder; None for those that aren't there.

    Raises:
        InputError: no such folder, or two sets of one name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that holds the sets")
    found: dict[str, Path | None] = dict.fromkeys(registry.entries)
    for child in sorted(folder.iterdir()):
        if child.name.startswith(".") or not (child.is_dir() or child.suffix == ".csv"):
            continue
        name = registry.match(name_of(child))
        if name is None:
            continue
        if found[name] is not None:
            raise InputError(f"{child}: {found[name]} is {name} too; move one of them away")
        found[name] = child
    return found


def apply(registry: Registry, data: EvalSet) -> EvalSet:
    """The set with its published class names, prompts and metric; others as they are.

    Raises:
        InputError: it bears the name of an entry and differs: number of classes, names of
            classes, number of images, or kind.
    """
    name = registry.match(data.name)
    if name is None:
        return data
    if data.folds:
        entry = registry.entries[name]
        parts = tuple(
            _applied(name, _of_fold(entry, data, i), registry, fold)
            for i, fold in enumerate(data.folds)
        )
        return replace(parts[0], split=data.split, folds=parts)
    return _applied(name, registry.entries[name], registry, data)


def _of_fold(entry: Entry, data: EvalSet, i: int) -> Entry:
    """The entry with the counts of one fold."""
    where = f"{data.path}: {entry.title}"
    published = entry.fold_train
    if published and len(published) != len(data.folds):
        raise InputError(f"{where} comes in {len(published)} folds, and this has"
                         f" {len(data.folds)}; --protocol own evaluates it as it is")  # fmt: skip
    if not published:
        return entry
    test = entry.fold_test[i] if entry.fold_test else entry.test
    return entry.model_copy(update={"train": published[i], "test": test})


def _applied(name: str, entry: Entry, registry: Registry, data: EvalSet) -> EvalSet:
    own = "; --protocol own evaluates it as it is"
    where = f"{data.path}: {entry.title}"
    if data.kind != entry.kind:
        raise InputError(f"{where} is a {entry.kind} set, and this is a {data.kind} one{own}")
    if entry.classes is not None and len(data.classes) != entry.classes:
        raise InputError(f"{where} has {entry.classes} classes, and this has"
                         f" {len(data.classes)}{own}")  # fmt: skip
    listed = registry.names(name)
    names = _by_name(f"{where}", data.classes, listed, own) if listed else data.names
    _check_count(where, entry, data, own)
    return replace(
        data,
        names=names,
        templates=registry.templates(name),
        metric=entry.metric,
        positive=names.index(listed[-1]) if len(listed) == len(names) == 2 else data.positive,
        entry=name,
        group=entry.group,
    )


def _by_name(
    where: str, classes: Sequence[str], listed: Sequence[tuple[str, ...]], own: str
) -> tuple[tuple[str, ...], ...]:
    """For each class of the set, the published names; found by any of them."""
    known = {_words(name): names for names in listed for name in names}
    unknown = [name for name in classes if _words(name) not in known]
    if unknown:
        near = difflib.get_close_matches(_words(unknown[0]), known, n=1, cutoff=0.0)
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        hint = f" (nearest: {known[near[0]][0]})" if near else ""
        raise InputError(f"{where} has no class {unknown[0]!r}{hint}{more}{own}")
    found = tuple(known[_words(name)] for name in classes)
    allowed = Counter(listed)
    for names, count in Counter(found).items():
        if count > allowed[names]:
            raise InputError(f"{where} has class {names[0]!r} once, and this has it twice{own}")
    return found


def _check_count(where: str, entry: Entry, data: EvalSet, own: str) -> None:
    """Images of the evaluated split, and of train and validation together."""
    expected = entry.train if data.split == "train" else entry.test
    n = len(data.samples)
    if expected is not None and n != expected:
        other = "test" if data.split == "train" else "train"
        is_other = n == (entry.test if data.split == "train" else entry.train)
        hint = f", which is its {other} split" if is_other else ""
        raise InputError(f"{where} has {expected:,} images to evaluate, and split"
                         f" {data.split} has {n:,}{hint}{own}")  # fmt: skip
    if data.train is not None and entry.train is not None:
        n = len(data.train.samples) + len(data.val.samples if data.val else ())
        if n != entry.train:
            raise InputError(f"{where} has {entry.train:,} images to train on, and train and"
                             f" validation have {n:,}{own}")  # fmt: skip


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _words(name: str) -> str:
    """A class name as it is compared: case, underscores, hyphens and spaces don't count."""
    return " ".join(re.sub(r"[_\s-]+", " ", name).split()).casefold()
