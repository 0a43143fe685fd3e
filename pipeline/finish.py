"""A finished shard from its ledger, in img2dataset's form: NNNNNN.tar, .parquet, _stats.json.

Names, columns and statistics are img2dataset's, so its tools read them, but the tar holds images
alone: what its json members would say stands in the table. Its writer is not used, for it takes as
long over a photograph as asking for it does. This runs in a process of its own.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import ledger
from pipeline.ledger import Place
from pipeline.task import SHARD_DIGITS, Outcome
from wit.config import write_json
from wit.schema import COUNTS
from wit.shard import TarWriter

KEY_DIGITS = 4  # a shard has at most 10,000 URLs
SCHEMA = pa.schema(
    [
        ("url", pa.string()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("sha256", pa.string()),
        ("format", pa.string()),
        ("phash", pa.uint64()),
        ("final_url", pa.string()),
        ("http_status", pa.int32()),
        ("content_type", pa.string()),
        ("last_modified", pa.string()),
        ("etag", pa.string()),
        ("x_robots_tag", pa.string()),
        ("bytes", pa.int64()),
    ]
)
TIMES = pa.schema([("key", pa.string()), ("time", pa.float64())])


def finish(
    path: Path, urls: list[str], encoding: str, attempt: Path, finished: Path, times: Path
) -> int:
    """Turn a ledger into a finished shard and remove it.

    Downloads end in any order, yet tar and table come out in the order of the list.

    Args:
        path: the ledger; its name says the shard's number.
        urls: the URLs of the shard, in the order of the list.
        encoding: extension of the images.
        attempt: folder to write in.
        finished: folder that the files are moved into, statistics last.
        times: folder for the times of the answers, which differ from run to run.

    Returns:
        The number of the shard.

    Raises:
        RuntimeError: a URL has no outcome.
    """
    shard, name = int(path.stem), path.stem
    found: dict[int, tuple[Outcome, Place]] = {}
    for outcome, place, _ in ledger.read(path):
        found[outcome.index] = outcome, place
    if sorted(found) != list(range(len(urls))):
        raise RuntimeError(f"{path}: {len(found)} outcomes for {len(urls)} URLs")
    statuses, reasons, rows, answered = Counter[str](), Counter[str](), [], []
    with path.open("rb") as file, (attempt / f"{name}.tar").open("wb") as target:
        tar = TarWriter(target)
        for index, url in enumerate(urls):
            outcome, place = found[index]
            key = f"{shard:0{SHARD_DIGITS}d}{index:0{KEY_DIGITS}d}"
            row = _row(url, key, outcome)
            if place.size:
                file.seek(place.offset)
                tar.add(f"{key}.{encoding}", file.read(place.size))
            rows.append(row)
            statuses["successes" if place.size else outcome.status] += 1
            reasons[outcome.reason or "success"] += 1
            answered.append({"key": key, "time": outcome.time})
        tar.close()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), attempt / f"{name}.parquet")
    pq.write_table(pa.Table.from_pylist(answered, TIMES), attempt / f"{name}_times.parquet")
    stats = {status: statuses[status] for status in COUNTS}
    write_json(
        {"count": len(urls), **stats, "status_dict": dict(reasons)}, attempt / f"{name}_stats.json"
    )
    _sync(attempt / f"{name}_times.parquet")
    (attempt / f"{name}_times.parquet").rename(times / f"{name}.parquet")
    _sync(times)
    for suffix in (".tar", ".parquet", "_stats.json"):  # the last one marks it finished
        _sync(attempt / (name + suffix))
        (attempt / (name + suffix)).rename(finished / (name + suffix))
    _sync(finished)
    path.unlink()
    return shard


def _row(url: str, key: str, outcome: Outcome) -> dict[str, Any]:
    known = outcome.as_dict() | {"url": url, "key": key, "error_message": outcome.reason}
    return {column: known[column] for column in SCHEMA.names}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
