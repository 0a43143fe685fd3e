"""Stage 60: download every wanted URL once, with img2dataset, and say what became of each.

The list of URLs is cut into shards; a shard is one task of a downloading process and ends as
NNNNNN.tar, NNNNNN.parquet and NNNNNN_stats.json, moved in that order into `img2dataset/`. A
killed run therefore goes on with the shards whose statistics stand. Downloads end in any order,
yet tars and tables come out in the order of the list, so two runs give the same bytes.

The processes are driven here and not by img2dataset's distributor, which waits for ever when
the system kills one of them.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import ShardsConfig
from pipeline.context import Context, LocalImage
from pipeline.download import FetchLimits
from pipeline.sources import roots
from pipeline.store import Storer
from pipeline.task import SHARD_DIGITS, Task, prepare, run_shard
from wit.config import write_json
from wit.errors import WitError
from wit.shard import read_groups

FOLDER = "img2dataset"
MOST, FEWEST, SHARES = 10_000, 100, 16  # URLs of a shard, and shards of a short list
TICK_S = 0.5
COUNTS = ("successes", "failed_to_download", "failed_to_resize")

FETCHED = pa.schema(
    [
        ("url_key", pa.uint64()),
        ("url", pa.string()),
        ("status", pa.string()),  # as img2dataset names it
        ("reason", pa.string()),  # null when an image is stored
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("format", pa.string()),
        ("sha256", pa.string()),
        ("phash", pa.uint64()),
        ("tar", pa.string()),  # file in img2dataset/
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("ext", pa.string()),
    ]
)


@dataclass(frozen=True)
class Part:
    """One shard's share of the list: a slice of one row group."""

    shard: int
    group: int
    first: int
    urls: int

    @property
    def name(self) -> str:
        return f"{self.shard:0{SHARD_DIGITS}d}"


def params(config: ShardsConfig) -> dict[str, Any]:
    """What decides the outcome of a download; thresholds on sizes come later."""
    fetch = config.fetch.model_dump(exclude={"processes", "threads", "resolve"})
    image = config.image.model_dump(include={"size", "quality", "max_pixels"})
    return {**fetch, **image}


def local_images(config: ShardsConfig, inputs: Mapping[str, Path]) -> list[LocalImage]:
    """The local images among what `50_balance` let through; none when all are URLs."""
    from pipeline.engine import connect, sql_text

    tables = {name: str(inputs[_TABLES[name]] / "*.parquet") for name in ("ingest", "balance")}
    with connect(config.engine, inputs["50_balance"].parent / ".spill") as con:
        found = con.execute(sql_text("60_local.sql"), tables).fetchall()
    folders = roots(config) if found else {}
    return [LocalImage(folders[source], source, path) for source, path in found]


def fetch(ctx: Context) -> None:
    """Download what `50_balance` let through, into `rows.parquet` and `img2dataset/`.

    Raises:
        WitError: a downloading process was killed, or the disk is full.
        RuntimeError: img2dataset lost samples.
    """
    folder = ctx.out / FOLDER
    folder.mkdir(exist_ok=True)
    for left in list(ctx.out.glob(".attempt-*")):  # of killed runs
        _abandon(left)
    urls = _list_urls(ctx)
    parts = list(_parts(urls))
    todo = [part for part in parts if not _finished(folder, part)]
    if todo:
        _download(ctx, urls, parts, todo)
    _write_rows(ctx.out / "rows.parquet", urls, parts, folder)


def _list_urls(ctx: Context) -> pq.ParquetFile:
    """The list, made once per fingerprint so that a second try cuts the same shards."""
    path = ctx.out / ".urls.parquet"
    if not path.exists():
        from pipeline.engine import copy

        names = {name: ctx.table(stage) for name, stage in _TABLES.items()}
        sources = list(roots(ctx.config)) if ctx.config.input else []
        with ctx.connect() as con:
            making = path.with_suffix(".tmp")
            copy(con, "60_fetch.sql", {**names, "sources": sources}, making, ctx.progress)
            making.replace(path)
    return pq.ParquetFile(path)


_TABLES = {"ingest": "10_ingest", "urls": "12_urls", "balance": "50_balance"}


def _parts(urls: pq.ParquetFile) -> Iterator[Part]:
    """The shards: by the length of the list alone, never by the number of processes."""
    size = shard_size(urls.metadata.num_rows)
    shard = 0
    for group in range(urls.num_row_groups):
        rows = urls.metadata.row_group(group).num_rows
        for first in range(0, rows, size):
            yield Part(shard, group, first, min(size, rows - first))
            shard += 1


def shard_size(urls: int) -> int:
    """URLs per shard: short lists are cut small enough to share and to watch."""
    return min(MOST, max(FEWEST, math.ceil(urls / SHARES)))


def _finished(folder: Path, part: Part) -> bool:
    """Whether a shard stands; the remains of one that doesn't are removed."""
    stats = folder / f"{part.name}_stats.json"
    try:
        found = bool(json.loads(stats.read_bytes())["count"] == part.urls)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        found = False
    if not found:
        for path in folder.glob(f"{part.name}[._]*"):
            path.unlink()
    return found


def _download(ctx: Context, urls: pq.ParquetFile, parts: list[Part], todo: list[Part]) -> None:
    config = ctx.config
    attempt = ctx.out / f".attempt-{os.getpid()}"
    attempt.mkdir()
    task = Task(
        limits(config),
        tuple(roots(config).values()) if config.input else (),
        Storer(config.image.size, config.image.quality, config.image.max_pixels),
        config.fetch.threads,
        shard_size(urls.metadata.num_rows),
        attempt,
        ctx.out / FOLDER,
    )
    pool = ProcessPoolExecutor(
        min(config.fetch.processes, len(todo)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=prepare,
        initargs=(os.getpid(), attempt),
    )
    done = {part.shard for part in parts} - {part.shard for part in todo}
    tally = Tally(ctx, task, parts, done)
    try:
        _drive(pool, task, _cut(urls, todo, attempt), tally)
        pool.shutdown()
    finally:
        _abandon(attempt)
        pool.shutdown(wait=False, cancel_futures=True)


def _abandon(attempt: Path) -> None:
    """Remove an attempt's folder. Its processes end as soon as they don't find it any more,
    also in the middle of a shard; until then they may still write, hence the new name and no
    complaint about what can't be removed: the runner clears names that begin with a dot."""
    gone = attempt.with_name(f".gone-{attempt.name}-{time.monotonic_ns()}")
    attempt.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _cut(urls: pq.ParquetFile, todo: list[Part], attempt: Path) -> Iterator[tuple[int, Path]]:
    """Each shard's number and its Arrow file of URLs, made when it is asked for."""
    group, listed = -1, pa.table({})
    for part in todo:
        if part.group != group:
            group, listed = part.group, urls.read_row_group(part.group, ["url"])
        path = attempt / f"{part.name}.arrow"
        mine = listed.slice(part.first, part.urls)
        with path.open("wb") as file, pa.ipc.new_file(file, mine.schema) as writer:
            writer.write_table(mine)
        yield part.shard, path


def limits(config: ShardsConfig) -> FetchLimits:
    """The limits of one download as its process needs them."""
    keys = {"timeout", "deadline", "max_bytes", "retries", "backoff", "user_agent"}
    return FetchLimits(
        **config.fetch.model_dump(include=keys), resolve=tuple(config.fetch.resolve.items())
    )


def _drive(
    pool: ProcessPoolExecutor, task: Task, shards: Iterator[tuple[int, Path]], tally: Tally
) -> None:
    """Keep every process busy, with few shards waiting, until all are done."""
    most = 2 * tally.ctx.config.fetch.processes
    pending: set[Future[int]] = set()
    while True:
        for shard, path in islice(shards, most - len(pending)):
            pending.add(pool.submit(run_shard, task, shard, path))
        if not pending:
            return
        ready, pending = wait(pending, TICK_S, FIRST_COMPLETED)
        for future in ready:
            tally.finish(_result(future))
        tally.report()


def _result(future: Future[int]) -> int:
    try:
        return future.result()
    except BrokenProcessPool:
        raise WitError(
            "download: a downloading process was killed, perhaps for want of memory: lower"
            " --fetch.processes or --fetch.threads and run again; finished shards are kept"
        ) from None
    except OSError as error:
        raise WitError(
            f"download: {error.strerror or error}: free disk space or mend the folder, then run"
            " the same command again; finished shards are kept"
        ) from None


class Tally:
    """Counts for the progress line: finished shards by their statistics, others by a byte a
    sample in the tally files of their processes."""

    def __init__(self, ctx: Context, task: Task, parts: list[Part], done: set[int]) -> None:
        self.ctx, self._attempt, self._folder = ctx, task.attempt, task.finished
        self._total = sum(part.urls for part in parts)
        self._ok = self._failed = 0
        for shard in done:
            self._add(shard)

    def _add(self, shard: int) -> None:
        stats = json.loads((self._folder / f"{shard:0{SHARD_DIGITS}d}_stats.json").read_bytes())
        self._ok += stats["successes"]
        self._failed += stats["count"] - stats["successes"]

    def finish(self, shard: int) -> None:
        """Take over the count of a shard that is finished."""
        self._add(shard)
        for path in self._attempt.glob(f"tally-{shard}.*"):
            path.unlink()

    def report(self) -> None:
        """Show the progress line."""
        sizes = {"ok": self._ok, "failed": self._failed}
        for path in self._attempt.glob("tally-*"):
            sizes[path.suffix[1:]] += path.stat().st_size
        done = sum(sizes.values())
        share = f"{sizes['ok'] / done:.0%} of them images" if done else "no answer yet"
        self.ctx.progress(done, self._total, f"URLs ({share})")


def _write_rows(target: Path, urls: pq.ParquetFile, parts: list[Part], folder: Path) -> None:
    """One row per URL, with the place of its image in the tars; checks every shard's count."""
    with pq.ParquetWriter(target, FETCHED, compression="zstd") as writer:
        group, listed = -1, pa.table({})
        for part in parts:
            if part.group != group:
                group, listed = part.group, urls.read_row_group(part.group)
            writer.write_table(_rows(folder, part, listed.slice(part.first, part.urls)))
        if not parts:
            writer.write_table(FETCHED.empty_table())


def _rows(folder: Path, part: Part, listed: pa.Table) -> pa.Table:
    tar = folder / f"{part.name}.tar"
    found = pq.read_table(folder / f"{part.name}.parquet")
    _check_counts(folder, part, listed, found)
    members = {key: group["jpg"] for key, group in read_groups(tar)}
    places = [members.get(key) for key in found["key"].to_pylist()]
    statuses = found["status"].to_pylist()
    if [place is not None for place in places] != [status == "success" for status in statuses]:
        raise RuntimeError(f"{tar}: its samples are not those that {part.name}.parquet names")
    columns = {name: found[name] for name in FETCHED.names if name in found.column_names}
    columns |= {
        "url_key": listed["url_key"],
        "reason": found["error_message"],
        "tar": [place and tar.name for place in places],
        "offset": [place and place.offset for place in places],
        "size": [place and place.size for place in places],
        "ext": [place and "jpg" for place in places],
    }
    return pa.table({name: columns[name] for name in FETCHED.names}).cast(FETCHED)


def _check_counts(folder: Path, part: Part, listed: pa.Table, found: pa.Table) -> None:
    """Hold a shard against its list: img2dataset's loop prints some errors and counts nothing.

    Raises:
        RuntimeError: samples are missing or not in the order of the list.
    """
    path = folder / f"{part.name}_stats.json"
    stats = json.loads(path.read_bytes())
    accounted = sum(stats[name] for name in COUNTS)
    if not stats["count"] == accounted == part.urls == found.num_rows:
        raise RuntimeError(
            f"{path}: {part.urls} URLs were to be fetched, {accounted} are accounted for and"
            f" {found.num_rows} in the table: the download lost samples; its output says why"
        )
    if found["url"].to_pylist() != listed["url"].to_pylist():
        raise RuntimeError(f"{folder / part.name}.parquet: not the URLs of the list, in order")
    # without the times of day, which differ from run to run
    kept = ("count", *COUNTS, "status_dict")
    write_json({name: stats[name] for name in kept}, path)
