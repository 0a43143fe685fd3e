"""Where each sample of a source lies, in a file of columns that is mapped into memory, not read.

An index is Parquet: to find one sample in it a row group must be decoded. So it is written out
once, uncompressed, into the user's cache folder; opening that takes time and memory by its pieces,
not by its samples, and all processes of a machine share the pages. Its .json is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from train.cache import locked
from wit.config import fingerprint, write_json
from wit.index_cache import cache_folder

VERSION = 1  # rises when what lies in a table changes
PIECE = 1 << 18  # rows
COLUMNS = pa.schema(
    [
        ("key", pa.string()),
        ("file", pa.int32()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("text_json", pa.uint8()),
        ("text_offset", pa.int64()),
        ("text_size", pa.int64()),
    ]
)


class Row(NamedTuple):
    """One sample: the number of its shard, and where picture and caption lie in it, in bytes."""

    file: int
    offset: int
    size: int
    text_json: int
    text_offset: int
    text_size: int


class Table:
    """The samples of one source.

    Attributes:
        files: names of its shards.
        ends: the last byte that any sample of a shard needs, for each.
        digest: sha256 over keys, uids and sizes.
    """

    def __init__(self, path: Path) -> None:
        about = json.loads(path.with_suffix(".json").read_text("utf-8"))
        self.files: list[str] = about["files"]
        self.ends: list[int] = about["ends"]
        self.digest: str = about["digest"]
        with pa.memory_map(str(path)) as source:
            pieces = pa.ipc.open_file(source)
            batches = [pieces.get_batch(i) for i in range(pieces.num_record_batches)]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._keys = [batch["key"] for batch in batches]
        self._columns = [
            [batch[name].to_numpy(zero_copy_only=True) for name in Row._fields] for batch in batches
        ]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def key(self, i: int) -> str:
        piece, at = self._place(i)
        key: str = self._keys[piece][at].as_py()
        return key

    def row(self, i: int) -> Row:
        piece, at = self._place(i)
        return Row(*(int(column[at]) for column in self._columns[piece]))

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Every sample's number and place, in order."""
        for start, columns in zip(self._starts, self._columns, strict=False):
            for at in range(len(columns[0])):
                yield int(start) + at, Row(*(int(column[at]) for column in columns))

    def _place(self, i: int) -> tuple[int, int]:
        piece = int(np.searchsorted(self._starts, i, side="right")) - 1
        return piece, i - int(self._starts[piece])


Batches = Callable[[], Iterable[pa.RecordBatch]]


def open_table(batches: Batches, identity: Sequence[Any], wanted: Any) -> Table:
    """The table of an index, made the first time.

    Args:
        batches: gives rows of `schema.INDEX`; called only if the table isn't there.
        identity: plain values; equal ones stand for equal rows.
        wanted: uids (keys, where there are no uids) to keep; None: all.
    """
    chosen = None if wanted is None else hashlib.sha256("\n".join(wanted.to_pylist()).encode())
    name = fingerprint([VERSION, *identity, chosen and chosen.hexdigest()])
    folder = cache_folder().with_name("tables")
    with suppress(OSError), locked(folder / f"{name}.lock"):
        path = folder / f"{name}.arrow"
        if not path.with_suffix(".json").is_file():
            _write(batches, wanted, path)
        with suppress(OSError, ValueError, KeyError, pa.ArrowException):
            return Table(path)
        path.with_suffix(".json").unlink(missing_ok=True)  # damaged: made again
        _write(batches, wanted, path)
        return Table(path)
    with tempfile.TemporaryDirectory() as place:  # mapped files stay when their names go
        _write(batches, wanted, Path(place) / "table.arrow")
        return Table(Path(place) / "table.arrow")


def _write(batches: Batches, wanted: Any, path: Path) -> None:
    numbers: dict[str, int] = {}
    ends = np.zeros(0, np.int64)
    digests = [hashlib.sha256() for _ in range(3)]
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, COLUMNS) as out:
        for batch in batches():
            rows = _chosen(pa.Table.from_batches([batch]), wanted)
            if not rows.num_rows:
                continue
            file_N = _numbered(rows["shard"], numbers)
            ends = np.concatenate([ends, np.zeros(len(numbers) - len(ends), np.int64)])
            for kind in ("", "text_"):
                end_N = rows[f"{kind}offset"].to_numpy() + rows[f"{kind}size"].to_numpy()
                np.maximum.at(ends, file_N, end_N)
            made = {name: rows[name] for name in COLUMNS.names if name in rows.column_names}
            made["file"] = pa.array(file_N)
            made["text_json"] = pc.equal(rows["text_ext"], "json").cast(pa.uint8())
            table = pa.table([made[name] for name in COLUMNS.names], schema=COLUMNS)
            out.write_table(table, max_chunksize=PIECE)
            for digest, name in zip(digests, ("key", "uid"), strict=False):
                lines = "".join(f"{value or ''}\n" for value in rows[name].to_pylist())
                digest.update(lines.encode())
            sizes = np.stack([rows["size"].to_numpy(), rows["text_size"].to_numpy()], axis=1)
            digests[2].update(np.ascontiguousarray(sizes, "<i8").tobytes())
    with temporary.open("rb") as whole_file:
        os.fsync(whole_file.fileno())
    temporary.replace(path)
    whole = hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
    about = {"files": list(numbers), "ends": ends.tolist(), "digest": whole}
    write_json(about, path.with_suffix(".json"))


def _numbered(names: pa.ChunkedArray, numbers: dict[str, int]) -> npt.NDArray[np.int32]:
    """The number of each name; new names get the next ones."""
    parts = []
    for chunk in names.chunks:
        coded = chunk.dictionary_encode()
        known = [numbers.setdefault(name, len(numbers)) for name in coded.dictionary.to_pylist()]
        parts.append(np.array(known, np.int32)[coded.indices.to_numpy()])
    return np.concatenate(parts)


def _chosen(rows: pa.Table, wanted: Any) -> pa.Table:
    """The rows whose uid, or key where there are no uids, is wanted."""
    if wanted is None:
        return rows
    name = "key" if rows["uid"].null_count == rows.num_rows else "uid"
    return rows.filter(pc.is_in(rows[name], value_set=wanted))
