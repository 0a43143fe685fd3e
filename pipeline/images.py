"""Stage 70: what the downloaded images are worth, and which of them show the same picture.

Sizes are judged by what the download recorded, so a new threshold needs no new download. Of
images that look alike the best stays: the larger, then the one of lower rank. The work is done
on narrow tables in SQL, twenty small joins one after the other; only the pairs that were found
pass through Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import lists, optout, overlaps
from pipeline.config import ShardsConfig
from pipeline.context import Context
from pipeline.dedupe import block_masks, representatives

if TYPE_CHECKING:
    import duckdb

TABLES = {
    "ingest": "10_ingest",
    "urls": "12_urls",
    "balance": "50_balance",
    "fetch": "60_fetch",
}
SQL_FILES = (
    tuple(f"70_{name}.sql" for name in ("checked", "hashes", "near", "edges", "looks", "images"))
    + overlaps.SQL_FILES
)


OVERLAPS = pa.schema(
    [
        ("url_key", pa.uint64()),
        ("set", pa.string()),
        ("key", pa.string()),
        ("how", pa.string()),
        ("distance", pa.int32()),
    ]
)


def params(config: ShardsConfig) -> dict[str, Any]:
    """The thresholds of the stage."""
    return {
        "min_side": config.image.min_side,
        "max_aspect": config.image.max_aspect,
        "phash_distance": config.dedupe.phash_distance,
        "drop": config.dedupe.overlap == "drop",
        "sets": [folder.name for folder in config.dedupe.evaluation],
    }


def files(config: ShardsConfig) -> list[Path]:
    """The lists of opt-outs and the evaluation sets."""
    return [*optout.files(config), *lists.files(config), *overlaps.files(config)]


def images(ctx: Context) -> None:
    """Write `rows.parquet`: row, reason, kept_row and what is known of the image."""
    from pipeline.engine import copy

    scratch = ctx.out / ".work"
    (scratch / "near").mkdir(parents=True, exist_ok=True)
    tables = {name: ctx.table(stage) for name, stage in TABLES.items()}
    values = dict(ctx.params)
    distance = values.pop("phash_distance")
    del values["sets"]  # what they hold is in their tars
    files = {name: str(scratch / f"{name}.parquet") for name in ("checked", "hashes", "gone")}
    files["looks"] = str(scratch / "looks.parquet")

    with ctx.connect() as con:

        def run(file: str, given: dict[str, Any], target: Path) -> None:
            copy(con, file, given, target)

        checked = {"checked": files["checked"]}
        met = _overlaps(ctx, con, scratch, tables["fetch"], distance)
        given = {"fetch": tables["fetch"], **values, "overlaps": met}
        run("70_checked.sql", given, Path(files["checked"]))
        run("70_hashes.sql", checked, Path(files["hashes"]))
        masks = block_masks()
        for i, mask in enumerate(masks):
            given = {"hashes": files["hashes"], "mask": mask, "phash_distance": distance}
            run("70_near.sql", given, scratch / "near" / f"{i:02d}.parquet")
            ctx.progress(i + 1, len(masks), "joins")
        gone = representatives(_edges(con, scratch / "near"))
        _write_gone(gone, Path(files["gone"]))
        looks = {name: files[name] for name in ("checked", "hashes", "gone")}
        run("70_looks.sql", looks, Path(files["looks"]))
        optouts = scratch / "optouts.parquet"
        listed = {("sha256", value) for value in lists.image_hashes(ctx.config)}
        known = optout.OptOuts(optout.read(ctx.corpus).entries | listed)
        pq.write_table(known.table(), optouts)
        last = {**tables, **checked, "looks": files["looks"], "optouts": str(optouts)}
        run("70_images.sql", last, ctx.out / "rows.parquet")
        (ctx.out / "overlaps").mkdir(exist_ok=True)
        named = {name: tables[name] for name in ("balance", "ingest", "urls")}
        target = ctx.out / "overlaps" / "00000.parquet"
        run("70_overlap_rows.sql", {**named, "overlaps": met}, target)


def _overlaps(
    ctx: Context, con: duckdb.DuckDBPyConnection, scratch: Path, fetch: str, distance: int
) -> str:
    """The table of images that overlap an evaluation set."""
    target = scratch / "overlaps.parquet"
    if overlaps.write_evaluation(ctx.config, scratch / "evaluation.parquet", ctx.progress):
        overlaps.find(con, scratch, fetch, distance, target)
    else:
        pq.write_table(OVERLAPS.empty_table(), target)
    return str(target)


def _edges(con: duckdb.DuckDBPyConnection, folder: Path) -> Iterator[tuple[int, int]]:
    from pipeline.engine import sql_text

    found = con.execute(sql_text("70_edges.sql"), {"near": str(folder / "*.parquet")})
    while rows := found.fetchmany(10_000):
        yield from rows


def _write_gone(gone: dict[int, int], path: Path) -> None:
    table = pa.table(
        {
            "place": pa.array(gone.keys(), pa.int64()),
            "kept": pa.array(gone.values(), pa.int64()),
        }
    )
    pq.write_table(table, path)
