"""Stage 80: the shards, in the order of rank over the whole corpus.

Rank is a hash, so this order is a shuffle that every run repeats. The URL list was downloaded
in the same order, so the tars of the download are read almost from front to back. A shard
holds a fixed number of samples; the attempts that failed in its range of ranks stand in the
table beside it, without a key. With a split, the pairs of the pages that are held out follow in
shards of their own, in val/.
"""

from __future__ import annotations

import shutil
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import ShardsConfig
from pipeline.context import Context
from pipeline.run_state import FOLDER
from wit import schema
from wit.config import write_json
from wit.schema import COUNTS
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
PACKED = pa.schema(
    [("row", pa.int64()), ("key", pa.string()), ("shard", pa.string()), ("split", pa.string())]
)
SPLITS = {"train": "shards", "val": "val"}  # and the folder of each
BATCH = 4096  # rows held at a time
ROW_GROUP = 65_536  # at most, in the table beside a shard
OPEN_TARS = 8


def params(config: ShardsConfig) -> dict[str, Any]:
    """The size of a shard, and what is held out."""
    return config.pack.model_dump()


def pack(ctx: Context) -> None:
    """Write `shards/`, with a split `val/` too, and `rows.parquet` (row, key, shard, split)."""
    from pipeline.engine import copy

    order, share = ctx.out / ".order.parquet", float(ctx.params.get("val_share", 0))
    tables = {name: ctx.table(stage) for name, stage in TABLES.items()}
    with ctx.connect() as con:
        copy(con, "80_pack.sql", {**tables, "val_share": share}, order)
    shutil.rmtree(ctx.corpus / SPLITS["val"], ignore_errors=True)  # of a build with another split
    number = 0  # of the next shard: numbers and keys are unique in the whole corpus
    with (
        pq.ParquetFile(order) as ordered,
        Tars(ctx.inputs["60_fetch"] / FOLDER) as tars,
        pq.ParquetWriter(ctx.out / "rows.parquet", PACKED, compression="zstd") as packed,
    ):
        for split in SPLITS if share else ("train",):
            number = _pack_split(ctx, split, Rows(ordered, split), number, tars, packed)


def _pack_split(
    ctx: Context, split: str, rows: Rows, number: int, tars: Tars, packed: pq.ParquetWriter
) -> int:
    """Write the shards of one split, from `number` on; returns the number after the last."""
    folder = ctx.out / SPLITS[split]
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    folder.mkdir()
    sizes = {}
    most = int(ctx.params["shard_size"]), int(ctx.params.get("shard_bytes", 0))
    with pq.ParquetWriter(folder / "index.parquet", schema.INDEX, compression="zstd") as index:
        while rows.next is not None:
            table, packed_rows = ShardWriter(folder, number, most, tars).write(rows)
            index.write_table(table)
            splits = pa.array([split] * packed_rows.num_rows, pa.string())
            packed.write_table(packed_rows.append_column("split", splits))
            sizes[shard_name(number)] = table.num_rows
            number += 1
            ctx.progress(rows.taken, rows.total, "samples")
    write_json(sizes, folder / "sizes.json")
    return number


class Rows:
    """The ordered rows of a split one by one, with a look at the next."""

    def __init__(self, file: pq.ParquetFile, split: str) -> None:
        lines = (row for batch in file.iter_batches(BATCH) for row in batch.to_pylist())
        self._rows = (row for row in lines if row["split"] == split)
        self.total = file.metadata.num_rows
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
        return index, pa.Table.from_pylist(self._packed, schema=PACKED.remove(3))

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
