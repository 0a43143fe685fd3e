"""The samples of one corpus or several: where each lies, and its bytes.

Nothing is read at the start but where samples lie, and of that only pages that are looked at, so
a start takes time and memory by the number of shards. M samples, those of the first source first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np

from train.sources import Source, open_source
from train.table import Row, Table, open_table
from wit import shard
from wit.errors import InputError, SampleError, TooManyBadSamples
from wit.uids import read_uids

TOGETHER = 1 << 14  # bytes between picture and caption that are read rather than skipped


class BadSamples:
    """Samples that couldn't be used: each logged once, counted, and at most `bound` of them."""

    def __init__(self, bound: int, log: Callable[[SampleError], None]) -> None:
        self.bound, self._log = bound, log
        self._seen: set[tuple[str, str]] = set()
        self._lock = Lock()

    def add(self, error: SampleError) -> None:
        """Raises TooManyBadSamples beyond the bound."""
        with self._lock:
            if (error.file, error.key) in self._seen:
                return
            self._seen.add((error.file, error.key))
            self._log(error)
            if len(self._seen) > self.bound:
                raise TooManyBadSamples(
                    f"more than data.max_bad = {self.bound} samples can't be used; the last:"
                    f" {error}; mend the shards or raise the bound"
                )


class Raw(NamedTuple):
    """A sample as it lies in its shard; `text_ext` is txt or json."""

    image: bytes
    text: bytes
    text_ext: str


class Pairs:
    """The samples of corpora or folders of tars, here or behind URLs: `A` or `A::B::C`.

    Attributes:
        path: as given.
        counts: samples of each source.
        remote: whether reading one waits for a network.
    """

    def __init__(
        self,
        path: str | Path,
        bad: BadSamples,
        select: Path | None = None,
        cache: Path | None = None,
        cache_bytes: int = 0,
    ) -> None:
        """
        Args:
            select: a file of uids (of keys, where shards have no uids) to keep; None: all.
            cache: folder for fetched shards; None: one in the user's cache folder.
            cache_bytes: its bound.

        Raises:
            InputError: no shards, or no usable or chosen sample in a source.
            CorpusError: a damaged index, or a shard that is gone.
        """
        self.path = str(path)
        wanted = None if select is None else read_uids(select)
        self._parts: list[tuple[Source, Table]] = []
        for name in self.path.split("::"):
            source = open_source(name, cache, cache_bytes)
            identity, batches = source.index(bad.add)
            table = open_table(batches, identity, wanted)
            if not len(table):
                about = f"{select}: holds no uid or key of {name}; give another list, or none"
                raise InputError(f"{name}: no usable sample in it" if wanted is None else about)
            source.use(table.files, table.ends)
            self._parts.append((source, table))
        self.counts = [len(table) for _, table in self._parts]
        self._firsts = np.cumsum([0, *self.counts])
        self.remote = any(source.remote for source, _ in self._parts)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def key(self, i: int) -> str:
        _, table, at = self._place(i)
        return table.key(at)

    def file(self, i: int) -> str:
        """Path or URL of the shard."""
        source, table, at = self._place(i)
        return source.where(table.row(at).file)

    def read(self, i: int) -> Raw:
        """Raises CorpusError: the shard is gone, cut off, or can't be reached."""
        source, table, at = self._place(i)
        return _read(source, table.row(at))

    def texts(self, bad: BadSamples) -> Iterator[str]:
        """Every readable caption, in order: one pass over all shards."""
        for source, table in self._parts:
            for at, row in table.rows():
                data = source.read(row.file, row.text_offset, row.text_size)
                try:
                    yield shard.read_caption(EXTS[row.text_json], data)
                except ValueError:
                    bad.add(SampleError(table.key(at), source.where(row.file), "bad_caption"))

    def digest(self) -> str:
        """sha256 over what the samples are: keys, uids, sizes of pictures and captions."""
        parts = "".join(table.digest for _, table in self._parts)
        return "table:" + hashlib.sha256(parts.encode()).hexdigest()

    def _place(self, i: int) -> tuple[Source, Table, int]:
        part = int(np.searchsorted(self._firsts, i, side="right")) - 1
        return *self._parts[part], i - int(self._firsts[part])


EXTS = ("txt", "json")


def _read(source: Source, row: Row) -> Raw:
    """Picture and caption, in one read where they lie together, as they do in our shards."""
    spans = sorted([(row.offset, row.size), (row.text_offset, row.text_size)])
    (first, size), (second, _) = spans
    if second - first - size <= TOGETHER:
        stop = max(start + length for start, length in spans)
        both = source.read(row.file, first, stop - first)
        image = both[row.offset - first : row.offset - first + row.size]
        text = both[row.text_offset - first : row.text_offset - first + row.text_size]
    else:
        image = source.read(row.file, row.offset, row.size)
        text = source.read(row.file, row.text_offset, row.text_size)
    return Raw(image, text, EXTS[row.text_json])
