"""Stage 80: the shards, in the order of rank over the whole corpus.

Rank is a hash, so this order is a shuffle that every run repeats. The URL list was downloaded
in the same order, so the tars of the download are read almost from front to back. A shard
holds a fixed number of samples; the attempts that failed in its range of ranks stand in the
table beside it, without a key.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import ShardsConfig
from pipeline.context import Context
from pipeline.fetch import COUNTS
from pipeline.run_state import FOLDER
from wit import schema
from wit.config import write_json
from wit.shard import Sample, read_member, sample_key, shard_name, write_shard

TABLES = {
    "ingest": "10_ingest",
    "urls": "12_urls",
    "clean": "15_clean",
    "fetch": "60_fetch",
    "images": "70_images",
    "cap": "75_cap",
}
# img2dataset's columns, in its order, and ours
ATTEMPTS = pa.schema(
    [
        ("url", pa.string()),
        ("caption", pa.string()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("sha256", pa.string()),
        ("uid", pa.string()),
    ]
)
PACKED = pa.schema([("row", pa.int64()), ("key", pa.string()), ("shard", pa.string())])
BATCH = 4096  # rows held at a time
ROW_GROUP = 65_536  # at most, in the table beside a shard
OPEN_TARS = 8


def params(config: ShardsConfig) -> dict[str, Any]:
    """The size of a shard."""
    return config.pack.model_dump()


def pack(ctx: Context) -> None:
    """Write `shards/` and `rows.parquet` (row, key, shard)."""
    from pipeline.engine import copy

    order = ctx.out / ".order.parquet"
    with ctx.connect() as con:
        copy(con, "80_pack.sql", {n: ctx.table(s) for n, s in TABLES.items()}, order)
    folder = ctx.out / "shards"
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    folder.mkdir()
    sizes = {}
    with (
        pq.ParquetFile(order) as ordered,
        Tars(ctx.inputs["60_fetch"] / FOLDER) as tars,
        pq.ParquetWriter(folder / "index.parquet", schema.INDEX, compression="zstd") as index,
        pq.ParquetWriter(ctx.out / "rows.parquet", PACKED, compression="zstd") as packed,
    ):
        rows = Rows(ordered)
        for number in itertools.count():
            if rows.next is None:
                break
            most = int(ctx.params["shard_size"]), int(ctx.params.get("shard_bytes", 0))
            shard = ShardWriter(folder, number, most, tars)
            table, packed_rows = shard.write(rows)
            index.write_table(table)
            packed.write_table(packed_rows)
            sizes[shard_name(number)] = table.num_rows
            ctx.progress(rows.taken, ordered.metadata.num_rows, "samples")
    write_json(sizes, folder / "sizes.json")


class Rows:
    """The ordered rows one by one, with a look at the next."""

    def __init__(self, file: pq.ParquetFile) -> None:
        batches = file.iter_batches(BATCH)
        self._rows = (row for batch in batches for row in batch.to_pylist())
        self.next: dict[str, Any] | None = next(self._rows, None)
        self.taken = 0

    def take(self) -> dict[str, Any]:
        """The next row; there must be one."""
        row = self.next
        assert row is not None
        self.next = next(self._rows, None)
        self.taken += 1
        return row


class Tars:
    """Reads images out of the download's tars; keeps the last few open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: OrderedDict[str, BinaryIO] = OrderedDict()

    def __enter__(self) -> Tars:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def read(self, tar: str, offset: int, size: int) -> bytes:
        """The bytes of one image."""
        if tar not in self._open:
            if len(self._open) == OPEN_TARS:
                self._open.popitem(last=False)[1].close()
            self._open[tar] = (self._folder / tar).open("rb")
        self._open.move_to_end(tar)
        return read_member(self._open[tar], offset, size)


class ShardWriter:
    """Writes one shard: NNNNN.tar, NNNNN.parquet with every attempt, NNNNN_stats.json."""

    def __init__(self, folder: Path, number: int, most: tuple[int, int], tars: Tars) -> None:
        self._folder, self._number, self._tars = folder, number, tars
        self._most, self._most_bytes = most
        self._bytes = 0
        self._attempts: list[dict[str, Any]] = []
        self._statuses: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._packed: list[dict[str, Any]] = []

    def write(self, rows: Rows) -> tuple[pa.Table, pa.Table]:
        """Take rows until the shard is full and write it; returns its index and packed rows."""
        name = shard_name(self._number)
        table = self._folder / name.replace(".tar", ".parquet")
        with pq.ParquetWriter(table, ATTEMPTS, compression="zstd") as writer:
            index = write_shard(self._folder / name, self._samples(rows, writer))
            self._flush(writer)
        stats = {status: self._statuses[status] for status in COUNTS}
        stats["successes"] = self._statuses["success"]
        count = sum(self._statuses.values())
        assert count == sum(stats.values()), f"{name}: {self._statuses}"
        found = {"count": count, **stats, "status_dict": dict(self._reasons)}
        write_json(found, self._folder / name.replace(".tar", "_stats.json"))
        return index, pa.Table.from_pylist(self._packed, schema=PACKED)

    def _samples(self, rows: Rows, writer: pq.ParquetWriter) -> Iterator[Sample]:
        """The samples of the shard; the attempts between them go to `writer`."""
        while rows.next is not None:
            good = rows.next["status"] == "success"
            if good and self._is_full(rows.next["size"]):
                return
            row = rows.take()
            key = sample_key(self._number, len(self._packed)) if good else None
            attempt = {name: key if name == "key" else row[name] for name in ATTEMPTS.names}
            self._attempts.append(attempt)
            if len(self._attempts) == ROW_GROUP:
                self._flush(writer)
            self._statuses[row["status"]] += 1
            self._reasons[row["error_message"] or "success"] += 1
            if key is not None:
                shard = shard_name(self._number)
                self._packed.append({"row": row["row"], "key": key, "shard": shard})
                self._bytes += row["size"]
                image = self._tars.read(row["tar"], row["offset"], row["size"])
                yield Sample(key, image, row["ext"], row["caption"], attempt)

    def _is_full(self, size: int) -> bool:
        """Whether an image of `size` bytes belongs into the next shard."""
        over = 0 < self._most_bytes < self._bytes + size
        return len(self._packed) == self._most or (over and bool(self._packed))

    def _flush(self, writer: pq.ParquetWriter) -> None:
        if self._attempts:
            writer.write_table(pa.Table.from_pylist(self._attempts, schema=ATTEMPTS))
        self._attempts = []
