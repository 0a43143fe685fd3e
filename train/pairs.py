"""The samples of one corpus or several: where each picture lies, and its caption.

M samples, those of the first source first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from train.captions import Captions
from wit import shard
from wit.errors import CorpusError, InputError, SampleError, TooManyBadSamples
from wit.uids import read_uids

Ints = npt.NDArray[np.int64]


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


class Pairs:
    """The samples of corpora or folders of tars, `A` or `A::B::C`.

    Attributes:
        path: as given.
        counts: samples of each source.
        texts: one caption per sample.
    """

    def __init__(self, path: Path, bad: BadSamples, select: Path | None = None) -> None:
        """
        Args:
            select: a file of uids (of keys, where shards have no uids) to keep; None: all.

        Raises:
            InputError: no shards, or no usable or chosen sample in a source.
            CorpusError: a damaged shard or index.
        """
        self.path = path
        wanted = None if select is None else read_uids(select)
        self.texts: list[str] = []
        self.counts: list[int] = []
        self._files: list[Path] = []
        parts = []
        for source in str(path).split("::"):
            table = _chosen(shard.load_index(Path(source), bad.add), wanted, source, select)
            folder = shard.shards_folder(Path(source))
            texts, usable = _captions(folder, table.to_pydict(), bad)
            if not usable:
                raise InputError(
                    f"{source}: no usable sample in {table.num_rows}; see the lines above"
                )
            table = table.take(usable)
            names, place_M = np.unique(table["shard"].to_numpy(), return_inverse=True)
            parts.append((table, place_M + len(self._files)))
            self._files += [folder / name for name in names]
            self.texts += texts
            self.counts.append(len(usable))
        self._keys = pa.chunked_array([c for table, _ in parts for c in table["key"].chunks])
        self._file_M: Ints = np.concatenate([place for _, place in parts])
        self._offset_M, self._size_M = (
            np.concatenate([table[name].to_numpy() for table, _ in parts])
            for name in ("offset", "size")
        )

    def __len__(self) -> int:
        return len(self._file_M)

    def key(self, i: int) -> str:
        key: str = self._keys[i].as_py()
        return key

    def file(self, i: int) -> Path:
        return self._files[int(self._file_M[i])]

    def image_bytes(self, i: int) -> bytes:
        """Raises CorpusError when the shard is gone or cut off."""
        try:
            with self.file(i).open("rb", buffering=0) as file:
                return shard.read_member(file, int(self._offset_M[i]), int(self._size_M[i]))
        except FileNotFoundError:
            raise CorpusError(f"{self.file(i)}: this shard is gone; build it again") from None

    def digest(self, captions: Captions) -> str:
        """sha256 over what the samples are: keys, sizes of the pictures, ids of the captions."""
        digest = hashlib.sha256("\n".join(self._keys.to_pylist()).encode())
        for array in (self._size_M, captions.ids):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _chosen(table: pa.Table, wanted: pa.Array | None, source: str, select: Path | None) -> pa.Table:
    """The rows whose uid, or key where there are no uids, is wanted."""
    if wanted is None:
        return table
    name = "key" if table["uid"].null_count == table.num_rows else "uid"
    table = table.filter(pc.is_in(table[name], value_set=wanted))
    if not table.num_rows:
        raise InputError(f"{select}: holds no {name} of {source}; give another list, or none")
    return table


def _captions(
    folder: Path, rows: dict[str, list[object]], bad: BadSamples
) -> tuple[list[str], list[int]]:
    """Every readable caption and the row it belongs to; one pass over the tars."""
    captions, usable = [], []
    columns = (rows[name] for name in ("key", "shard", "text_ext", "text_offset", "text_size"))
    with ExitStack() as stack:
        name, file = "", None
        for i, (key, tar, ext, offset, size) in enumerate(zip(*columns, strict=True)):
            if tar != name or file is None:
                stack.close()
                name, file = str(tar), _open(stack, folder / str(tar))
            data = shard.read_member(file, int(str(offset)), int(str(size)))
            try:
                captions.append(shard.read_caption(str(ext), data))
            except ValueError:
                bad.add(SampleError(str(key), str(folder / name), "bad_caption"))
                continue
            usable.append(i)
    return captions, usable


def _open(stack: ExitStack, path: Path) -> BinaryIO:
    try:
        return stack.enter_context(path.open("rb"))
    except FileNotFoundError:
        raise CorpusError(f"{path}: the index names this shard, but it is gone") from None
