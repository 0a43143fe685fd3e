"""The index of foreign tars, made once: reading every header of a large set takes minutes.

It lies in the user's cache folder, not beside the tars, which may be somebody else's. Its name is
a hash of the names, sizes and times of change of all tars, so tars that changed are read anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wit import schema
from wit.errors import SampleError

BAD = b"bad_samples"
OnBad = Callable[[SampleError], None]
Scan = Callable[[Path, OnBad], pa.Table]


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/wit/index, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "wit" / "index"


def index_of(tars: Sequence[Path], scan: Scan, on_bad: OnBad | None, name: str = "") -> pa.Table:
    """The rows that `scan` gives for each tar, from the cache where they are known.

    Args:
        scan: a tar and what to call for a bad sample, to rows of `schema.INDEX`.
        on_bad: called for each bad sample, also when the rows come from the cache; None: the first
            one is raised.
        name: stands for the tars as they are now; empty: one from their sizes and times of change.
    """
    path = cache_folder() / f"{name or name_of(tars)}.parquet"
    found = _read(path)
    if found is None:
        bad: list[SampleError] = []
        table = pa.concat_tables([scan(tar, bad.append) for tar in tars])
        _write(table, bad, path)
    else:
        table, bad = found
    _report(bad, on_bad)
    return table


def index_file(
    tars: Sequence[Path], scan: Scan, on_bad: OnBad | None, name: str = ""
) -> Path | pa.Table:
    """As `index_of`, but the file that holds the rows, where there is one: none are read."""
    path = cache_folder() / f"{name or name_of(tars)}.parquet"
    try:
        bad = _bad_of(pq.read_schema(path))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        table = index_of(tars, scan, on_bad, name)
        return path if path.is_file() else table
    _report(bad, on_bad)
    return path


def _report(bad: Sequence[SampleError], on_bad: OnBad | None) -> None:
    for error in bad:
        if on_bad is None:
            raise error
        on_bad(error)


def _bad_of(about: pa.Schema) -> list[SampleError]:
    rows = json.loads((about.metadata or {})[BAD])
    return [SampleError(key, file, reason) for key, file, reason in rows]


def name_of(tars: Sequence[Path]) -> str:
    """A name that changes when a tar does."""
    digest = hashlib.sha256()
    for tar in tars:
        about = tar.stat()
        digest.update(f"{tar.resolve()}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]


def _read(path: Path) -> tuple[pa.Table, list[SampleError]] | None:
    try:
        table = pq.read_table(path)
        bad = _bad_of(table.schema)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None  # absent, or cut off by a crash: it is made again
    table = table.replace_schema_metadata(None)
    return (table, bad) if table.schema.equals(schema.INDEX) else None


def _write(table: pa.Table, bad: Sequence[SampleError], path: Path) -> None:
    rows = [[error.key, error.file, str(error.reason)] for error in bad]
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata({BAD: json.dumps(rows)}), temporary)
        temporary.replace(path)
    except OSError:  # no place to remember it: the tars are read again next time
        with suppress(OSError):
            temporary.unlink()
