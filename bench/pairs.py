"""90_pairs alone, on made-up work tables: how fast every row gets its verdict, and growth.

    python bench/pairs.py [--rows 4000000] [--threads 2] [--memory-limit 2GB] [--json]

Of the rows 30% are dropped as duplicates of a row anywhere in the input, 10% as near-duplicate
images, and 20% are in shards. The growth exponent e says that four times the rows take 4^e times
the CPU seconds (JSON keys rows_per_cpu_s, growth_exponent).
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console
from rich.table import Table

from pipeline.config import ShardsConfig
from pipeline.context import Context
from pipeline.pairs import INPUTS, pairs
from wit.progress import Progress

FILE = 500_000  # rows of a work file
PART = 2_000_000  # rows of a part by keys
# Columns of the tables that are cut by rows, from `row`.
BY_ROW = {
    "10_ingest": """md5('' || row) AS uid, md5_number_lower('' || row) AS rank, 'a' AS source,
        'http://host' || row % 1000 || '.example/' || row AS url,
        'a caption of some eight words number ' || row AS raw_text, 640 AS declared_width,
        480 AS declared_height, NULL::VARCHAR AS license, 0.3::DOUBLE AS similarity,
        NULL::DOUBLE AS nsfw, NULL::DOUBLE AS watermark, NULL::DOUBLE AS aesthetic""",
    "12_urls": "'host' || row % 1000 || '.example' AS domain",
    "15_clean": """'a caption of some eight words number ' || row AS text, 'en' AS language,
        0.9::DOUBLE AS language_probability""",
    "30_filter": "CASE WHEN row % 10 < 4 THEN 'no_query' END AS reason",
}
GONE = "CASE WHEN {0} THEN '{1}' END AS reason, CASE WHEN {0} THEN {2} END AS kept_row"


def make_tables(folder: Path, rows: int) -> None:
    """Write the work tables that the stage reads."""
    any_row = f"CAST(md5_number_lower('k' || row) % {rows // 10} AS BIGINT) * 10 + 9"
    later = {
        "50_balance": ("NULL::VARCHAR AS reason", "row % 10 >= 7", "row"),
        "70_images": (
            GONE.format("row % 10 = 7", "near_duplicate_image", any_row)
            + """, 256 AS width, 256 AS height, 640 AS original_width, 480 AS original_height,
            'JPEG' AS format, sha256('' || row) AS sha256, md5_number_lower('p' || row) AS phash""",
            "row % 10 >= 7",
            "row",
        ),
        "75_cap": ("NULL::VARCHAR AS reason", "row % 10 >= 8", "row"),
        "80_pack": (
            "lpad('' || row, 9, '0') AS key, row % 100 || '.tar' AS shard, 'train' AS split",
            "row % 10 >= 8",
            "md5_number_lower('' || row)",
        ),
    }
    with duckdb.connect(config={"temp_directory": str(folder / "spill")}) as con:

        def write(stage: str, name: str, query: str) -> None:
            (folder / stage).mkdir(exist_ok=True)
            kind = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880"
            con.execute(f"COPY ({query}) TO '{folder / stage / name}.parquet' ({kind})")

        for nth, first in enumerate(range(0, rows, FILE)):
            span = f"range({first}, {min(first + FILE, rows)}) AS t (row)"
            for stage, columns in BY_ROW.items():
                write(stage, f"{nth:05}", f"SELECT row, {columns} FROM {span}")
        parts = max(1, -(-rows // PART))
        gone = GONE.format("row % 10 < 7", "duplicate_pair", any_row)
        for part in range(parts):
            mine = f"row % 10 >= 4 AND md5_number_lower('u' || row) % {parts} = {part}"
            query = f"SELECT row, {gone} FROM range({rows}) AS t (row) WHERE {mine} ORDER BY row"
            write("40_dedupe", f"{part:05}", query)
        for stage, (columns, which, order) in later.items():
            query = f"FROM range({rows}) AS t (row) WHERE {which} ORDER BY {order}"
            write(stage, "rows", f"SELECT row, {columns} {query}")


def measure(folder: Path, rows: int, engine: dict[str, Any]) -> dict[str, Any]:
    """Run the stage on so many rows."""
    (folder / "out").mkdir(parents=True)
    make_tables(folder, rows)
    inputs = {name: folder / name for name in INPUTS}
    config = ShardsConfig.model_validate({"engine": engine})
    quiet = Progress("90_pairs", io.StringIO())
    started, cpu = time.monotonic(), sum(os.times()[:2])
    counts = pairs(Context(config, {}, inputs, folder / "out", folder, quiet))
    seconds, cpu_seconds = time.monotonic() - started, sum(os.times()[:2]) - cpu
    assert (counts.rows_in, counts.rows_out) == (rows, rows // 5)
    return {"rows": rows, "seconds": seconds, "cpu_seconds": cpu_seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-limit", default="2GB", help="of DuckDB")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    engine = {"threads": options.threads, "memory_limit": options.memory_limit}
    table = Table("rows", "seconds", "CPU s", "rows per CPU s")
    found = []
    for rows in (options.rows // 40 * 10, options.rows // 10 * 10):
        with tempfile.TemporaryDirectory(prefix="pairs-") as folder:
            found.append(measure(Path(folder), rows, engine))
        last = found[-1]
        rate = rows / last["cpu_seconds"]
        table.add_row(
            f"{rows:,}", f"{last['seconds']:.1f}", f"{last['cpu_seconds']:.1f}", f"{rate:,.0f}"
        )
    small, large = found
    exponent = math.log(large["cpu_seconds"] / small["cpu_seconds"]) / math.log(4)
    Console().print(table)
    print(f"growth exponent of the CPU seconds: {exponent:.2f}")
    if options.json:
        rate = large["rows"] / large["cpu_seconds"]
        print(json.dumps({**large, "rows_per_cpu_s": rate, "growth_exponent": exponent}))


if __name__ == "__main__":
    main()
