"""Stage 90: pairs/*.parquet, every input row with its verdict (`wit.schema.PAIRS`)."""

from __future__ import annotations

from pipeline.context import Context, Counts
from pipeline.engine import copy
from pipeline.runner import count

_ROWS = 2_000_000  # of one file: what is joined at a time, so memory stays bounded
_TABLES = ("10_ingest", "12_urls", "15_clean", "30_filter", "40_dedupe", "50_balance")
INPUTS = (*_TABLES, "70_images", "75_cap", "80_pack")


def pairs(context: Context, rows_per_file: int = _ROWS) -> Counts:
    """Write `pairs/00000.parquet`, … in the order of the input.

    Raises:
        AssertionError: a row without reason is not in a shard, or the other way round.
    """
    folder = context.out / "pairs"
    folder.mkdir(exist_ok=True)
    tables = {name.partition("_")[2]: context.table(name) for name in INPUTS}
    ends = context.out / ".ends.parquet"
    tables["ends"] = str(ends)
    with context.connect() as con:
        copy(con, "90_ends.sql", tables, ends, context.progress)
        total = count(con, tables["ingest"]).rows_in
        for number, first in enumerate(range(0, max(total, 1), rows_per_file)):
            limits = {"first": first, "last": first + rows_per_file}
            copy(con, "90_pairs.sql", {**tables, **limits}, folder / f"{number:05}.parquet")
            context.progress(min(first + rows_per_file, total), total)
        counts = count(con, str(folder / "*.parquet"), context.config.drop)
        packed = count(con, tables["pack"]).rows_out
    assert counts.rows_out == packed, f"{counts.rows_out} rows kept, {packed} packed"
    return counts
