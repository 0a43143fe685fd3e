"""Stage 60: download every wanted URL once, and say what became of each.

The list of URLs is cut into shards. What comes of a URL goes into the ledger of its shard, so a
killed run goes on where it was; a shard whose URLs are all through ends as NNNNNN.tar,
NNNNNN.parquet and NNNNNN_stats.json in `img2dataset/`, in the form of that tool and moved there in
that order. Downloads end in any order, yet tars and tables come out in the order of the list, so
two runs give the same bytes. When an answer came differs from run to run: that is in
provenance.parquet at the top of the corpus.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import NO_EFFECT, ShardsConfig
from pipeline.context import Context, LocalImage
from pipeline.pool import Breaker, Pool
from pipeline.run_state import FOLDER, LEDGERS, TIMES, Part, Run, Shards
from pipeline.sources import roots
from pipeline.store import Storer
from pipeline.task import FetchLimits, Task
from wit.manifest import PROVENANCE
from wit.schema import COUNTS
from wit.shard import read_groups

MOST, FEWEST, SHARES = 10_000, 100, 16  # URLs of a shard, and shards of a short list
SOURCE = (
    "reason",
    "final_url",
    "http_status",
    "content_type",
    "last_modified",
    "etag",
    "x_robots_tag",
    "bytes",
    "sha256",
)

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
        ("final_url", pa.string()),
        ("http_status", pa.int32()),
        ("content_type", pa.string()),
        ("last_modified", pa.string()),
        ("etag", pa.string()),
        ("x_robots_tag", pa.string()),
        ("bytes", pa.int64()),
    ]
)


def params(config: ShardsConfig) -> dict[str, Any]:
    """What decides the outcome of a download; thresholds on sizes come later."""
    fetch = config.fetch.model_dump(mode="json", exclude=NO_EFFECT["fetch"])
    image = config.image.model_dump(include={"size", "quality", "max_pixels", "resize", "encoding"})
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
        WitError: the network is down, a process was killed again and again, the disk is full.
        RuntimeError: a shard's files are at odds with each other.
    """
    parts, todo = unfinished(ctx)
    if todo and ctx.config.engine.name == "ray":
        from pipeline import leases

        leases.fetch_leased(ctx, parts, todo)
    elif todo:
        download(ctx, parts, todo)
    urls, folder = _list_urls(ctx), ctx.out / FOLDER
    rows = ctx.out / "rows.parquet"
    _write_rows(rows, urls, parts, folder, ctx.config.image.encoding)
    write_provenance(rows, parts, ctx.out / TIMES, ctx.corpus / PROVENANCE)


def unfinished(
    ctx: Context, mine: Callable[[Part], bool] = lambda _: True
) -> tuple[list[Part], list[Part]]:
    """The shards of the list, and those of `mine` that don't stand; remains of these go."""
    folder = ctx.out / FOLDER
    folder.mkdir(exist_ok=True)
    parts = [part for part in _parts(_list_urls(ctx)) if mine(part)]
    return parts, [part for part in parts if not _finished(folder, part)]


def _list_urls(ctx: Context) -> pq.ParquetFile:
    """The list, made once per fingerprint so that a second try cuts the same shards."""
    path = ctx.out / ".urls.parquet"
    if not path.exists():
        from pipeline.engine import copy

        names = {name: ctx.table(stage) for name, stage in _TABLES.items()}
        sources = list(roots(ctx.config)) if ctx.config.input else []
        with ctx.connect() as con:
            making = path.with_suffix(f".{secrets.token_hex(8)}.tmp")
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


def download(
    ctx: Context, parts: list[Part], todo: list[Part], holder: str = "", share: int = 1
) -> None:
    """Fetch the shards that are to do, go on with their ledgers, and finish them.

    Args:
        ctx: of the stage.
        parts: all shards that count for the progress.
        todo: those to fetch; nobody else may be at work on them.
        holder: who holds them, where several share the list.
        share: how many do; each keeps to its part of the limits per host.
    """
    config, urls = ctx.config, _list_urls(ctx)
    for left in list(ctx.out.glob(f".attempt-{holder}*")):  # of killed runs
        _abandon(left)
    attempt = ctx.out / f".attempt-{holder}{secrets.token_hex(8)}"
    for folder in (attempt, ctx.out / LEDGERS, ctx.out / TIMES):
        folder.mkdir(exist_ok=True)
    task = Task(
        limits(config, share),
        tuple(roots(config).values()) if config.input else (),
        Storer(
            config.image.size,
            config.image.quality,
            config.image.max_pixels,
            config.image.resize,
            config.image.encoding,
        ),
        attempt,
    )
    total, missing = (sum(part.urls for part in some) for some in (parts, todo))
    try:
        with Run(ctx, task, total, total - missing, Shards(urls, todo)) as run:
            breaker = Breaker(config.fetch.max_failures)
            with Pool(task, config.fetch.processes, breaker, run.take) as pool:
                pool.run(run.orders(), run.tick)
                pool.run(run.late(), run.tick)
            run.finish()
    finally:
        _abandon(attempt)


def _abandon(attempt: Path) -> None:
    """Remove an attempt's folder. Its processes end as soon as they don't find it any more;
    until then they may still write, hence the new name and no complaint about what can't be
    removed: the runner clears names that begin with a dot."""
    gone = attempt.with_name(f".gone-{attempt.name}-{secrets.token_hex(8)}")
    with suppress(FileNotFoundError):  # others took over
        attempt.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def limits(config: ShardsConfig, share: int = 1) -> FetchLimits:
    """The limits of one downloading process, of a run that shares the hosts with others."""
    per_host = {"host_connections", "host_rate"}
    keys = set(FetchLimits.__dataclass_fields__) - {"resolve", "connections"} - per_host
    return FetchLimits(
        **config.fetch.model_dump(include=keys),
        host_connections=max(1, config.fetch.host_connections // share),
        host_rate=config.fetch.host_rate / share,
        connections=math.ceil(config.fetch.connections / config.fetch.processes),
        resolve=tuple(config.fetch.resolve.items()),
    )


def _write_rows(
    target: Path, urls: pq.ParquetFile, parts: list[Part], folder: Path, encoding: str
) -> None:
    """One row per URL, with the place of its image in the tars; checks every shard's count."""
    with pq.ParquetWriter(target, FETCHED, compression="zstd") as writer:
        group, listed = -1, pa.table({})
        for part in parts:
            if part.group != group:
                group, listed = part.group, urls.read_row_group(part.group)
            mine = listed.slice(part.first, part.urls)
            writer.write_table(_rows(folder, part, mine, encoding))
        if not parts:
            writer.write_table(FETCHED.empty_table())


def _rows(folder: Path, part: Part, listed: pa.Table, encoding: str) -> pa.Table:
    tar = folder / f"{part.name}.tar"
    found = pq.read_table(folder / f"{part.name}.parquet")
    _check_counts(folder, part, listed, found)
    members = {key: group[encoding] for key, group in read_groups(tar)}
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
        "ext": [place and encoding for place in places],
    }
    return pa.table({name: columns[name] for name in FETCHED.names}).cast(FETCHED)


def write_provenance(rows: Path, parts: list[Part], times: Path, target: Path) -> None:
    """provenance.parquet: where each URL led, what the server said of it, and when."""
    temporary = target.with_name(target.name + ".tmp")
    kinds = {field.name: field.type for field in FETCHED}
    schema = pa.schema([(name, kinds[name]) for name in ("url", *SOURCE)])
    schema = schema.append(pa.field("fetched_at", pa.timestamp("us", "UTC")))
    options = {"compression": "zstd", "write_page_checksum": True}
    with pq.ParquetFile(rows) as file, pq.ParquetWriter(temporary, schema, **options) as writer:
        for group, part in enumerate(parts):  # `_write_rows` wrote one group for each
            table = file.read_row_group(group, columns=["url", *SOURCE])
            answered = times / f"{part.name}.parquet"
            if answered.exists():
                seconds = pq.read_table(answered)["time"].to_numpy()
                micros = pa.array((seconds * 1e6).round().astype("int64"))
            else:  # of a version that kept no times
                micros = pa.nulls(part.urls, pa.int64())
            table = table.append_column("fetched_at", micros.cast(pa.timestamp("us", "UTC")))
            writer.write_table(table)
    temporary.replace(target)


def _check_counts(folder: Path, part: Part, listed: pa.Table, found: pa.Table) -> None:
    """Hold a shard against its list.

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
