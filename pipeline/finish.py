"""A finished shard from its ledger, as img2dataset writes it: NNNNNN.tar, .parquet, _stats.json.

img2dataset is the writer here. Its package imports OpenCV, albumentations and wandb, which take
seconds, look for updates and warn; its writer needs none of them and is loaded without. This
module is imported in a process of its own, which stands in for the package's own module.
"""

from __future__ import annotations

import functools
import importlib.machinery
import json
import os
import sys
import types
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import ledger
from pipeline.ledger import Place
from pipeline.task import SHARD_DIGITS, Outcome
from wit.config import write_json

COUNTS = ("successes", "failed_to_download", "failed_to_resize")
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
    shard_writer = writer()(shard, str(attempt), False, SHARD_DIGITS, SCHEMA, encoding)
    shard_writer.tarwriter.mtime = 0
    shard_writer.buffered_parquet_writer.buffer_size = 10_000
    statuses, reasons, answered = Counter[str](), Counter[str](), []
    with path.open("rb") as file:
        for index, url in enumerate(urls):
            outcome, place = found[index]
            key = f"{shard:0{SHARD_DIGITS}d}{index:0{KEY_DIGITS}d}"
            file.seek(place.offset)
            image = file.read(place.size) if place.size else None
            row = _row(url, key, outcome)
            if image is not None:  # as its `write` does, but for JSON on a single line
                meta = json.dumps(row, ensure_ascii=False).encode()
                shard_writer.tarwriter.write({"__key__": key, encoding: image, "json": meta})
            shard_writer.buffered_parquet_writer.write(row)
            statuses["successes" if image else outcome.status] += 1
            reasons[outcome.reason or "success"] += 1
            answered.append({"key": key, "time": outcome.time})
    shard_writer.close()
    pq.write_table(pa.Table.from_pylist(answered, TIMES), attempt / f"{name}_times.parquet")
    stats = {name: statuses[name] for name in COUNTS}
    write_json(
        {"count": len(urls), **stats, "status_dict": dict(reasons)}, attempt / f"{name}_stats.json"
    )
    (attempt / f"{name}_times.parquet").rename(times / f"{name}.parquet")
    for suffix in (".tar", ".parquet", "_stats.json"):  # the last one marks it finished
        _sync(attempt / (name + suffix))
        (attempt / (name + suffix)).rename(finished / (name + suffix))
    _sync(finished)
    path.unlink()
    return shard


@functools.cache
def writer() -> Any:
    """img2dataset's WebDatasetSampleWriter."""
    spec = importlib.machinery.PathFinder.find_spec("img2dataset")
    assert spec is not None, "img2dataset is part of the pipeline extra"
    package = types.ModuleType("img2dataset")
    package.__path__ = list(spec.submodule_search_locations or [])
    sys.modules.setdefault("img2dataset", package)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from img2dataset.writer import WebDatasetSampleWriter
    return WebDatasetSampleWriter


def _row(url: str, key: str, outcome: Outcome) -> dict[str, Any]:
    known = outcome.as_dict() | {"url": url, "key": key, "error_message": outcome.reason}
    return {column: known[column] for column in SCHEMA.names}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
