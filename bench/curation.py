"""The metadata half of `wit shards` on generated metadata: how fast, in how much memory, growth.

    python bench/curation.py [--rows 300000] [--memory-limit 4GB] [--threads 2] [--json]
    python bench/curation.py --near-texts 0.7     # with near-duplicate captions, at this likeness
    python bench/curation.py --pairs 60000000     # only the cap, on so many (pair, query) rows

Runs 10_ingest to 50_balance on `--rows` rows of `pipeline.sample.crowd` (a query list of 200,000)
and on a third of them. Peak memory is that of all processes together, as the system counts it;
spilled is the most that lay in DuckDB's temporary files at a time. The growth exponent e says that
n times the rows take n^e times the CPU seconds (of all processes, so that what else the machine
does counts little). Larger sizes are extrapolated with it, and said to be.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
from rich.console import Console
from rich.table import Table

from pipeline.balance import BRING
from pipeline.config import EngineConfig, ShardsConfig
from pipeline.engine import connect, copy
from pipeline.runner import Runner
from pipeline.sample.crowd import write_metadata, write_queries
from pipeline.stages import STAGES
from wit.progress import duration

LAST = "50_balance"
QUERIES = 200_000
FAR = {"400M": 400_000_000, "12.8B": 12_800_000_000}
_POLL = 0.1  # seconds between two looks at memory and spilled files


class Watch:
    """Peak memory of this process and its children, and peak size of the spilled files."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._done = folder, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peak_mb = self.spilled_mb = self.seconds = self.cpu_seconds = 0.0

    def __enter__(self) -> Watch:
        self._start, self._cpu = time.monotonic(), _cpu_seconds()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.seconds, self.cpu_seconds = time.monotonic() - self._start, _cpu_seconds() - self._cpu
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.peak_mb = max(self.peak_mb, sum(map(_resident_mb, _family())))
            self.spilled_mb = max(self.spilled_mb, _spilled_mb(self._folder))
            if self._done.wait(_POLL):
                return


def _cpu_seconds() -> float:
    """Of this process and of all children that have ended."""
    return sum(os.times()[:4])


def _family() -> list[Path]:
    """This process and all below it, in /proc."""
    found = [Path("/proc/self")]
    for process in found:
        for task in process.glob("task/*/children"):
            try:
                found += [Path("/proc") / child for child in task.read_text().split()]
            except OSError:
                continue
    return found


def _resident_mb(process: Path) -> float:
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def _spilled_mb(folder: Path) -> float:
    total = 0
    for path in folder.glob("**/*.spill/*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total / 2**20


def curate(folder: Path, rows: int, near: float, engine: dict[str, Any]) -> dict[str, Any]:
    """Run the metadata half on `rows` rows; seconds, peak memory and spilled bytes by stage."""
    started = time.monotonic()
    write_metadata(folder / "in", rows)
    took = duration(time.monotonic() - started)
    print(f"{rows:,} rows of metadata written in {took}", flush=True)
    config = ShardsConfig.model_validate(
        {
            "input": [folder / "in"],
            "corpus": folder / "corpus",
            "queries": write_queries(folder / "queries.txt", QUERIES),
            "image": {"declared_min_side": 100, "declared_max_aspect": 3},
            "scores": {"similarity": {"top": 0.9}},
            "dedupe": {"near_texts": {"threshold": near}},
            "engine": engine,
        }
    )
    runner, stages = Runner(config), []
    for stage in STAGES:
        with Watch(folder) as watch:
            counts = runner.run(stage).counts
        found = {"stage": stage.name, "rows_in": counts.rows_in, "rows_out": counts.rows_out}
        measured = ("seconds", "cpu_seconds", "peak_mb", "spilled_mb")
        stages.append(found | {name: getattr(watch, name) for name in measured})
        if stage.name == LAST:
            break
    shutil.rmtree(folder)
    seconds = sum(stage["seconds"] for stage in stages)
    return {
        "rows": rows,
        "kept": stages[-1]["rows_out"],
        "seconds": seconds,
        "cpu_seconds": sum(stage["cpu_seconds"] for stage in stages),
        "rows_per_s": rows / seconds,
        "peak_mb": max(stage["peak_mb"] for stage in stages),
        "spilled_mb": max(stage["spilled_mb"] for stage in stages),
        "stages": stages,
    }


def cap(folder: Path, pairs: int, engine: EngineConfig) -> dict[str, Any]:
    """Time 48_bottom_k.sql alone on (pair, query) rows whose queries follow Zipf's law."""
    folder.mkdir(parents=True)
    with connect(engine, folder / "made.spill") as con:
        made = {
            "standing": f"""SELECT range AS row, CAST(NULL AS VARCHAR) AS reason,
                md5_number_lower(CAST(range AS VARCHAR)) AS rank FROM range({pairs // 3})""",
            "match": f"""SELECT range // 3 AS row, CAST(floor(500000 ** (md5_number_lower(
                'q' || range) / 18446744073709551616.0)) AS INTEGER) AS query_id
                FROM range({pairs // 3 * 3})""",
        }
        tables = {name: str(folder / f"{name}.parquet") for name in made}
        for name, query in made.items():
            con.execute(f"COPY ({query}) TO '{tables[name]}' (FORMAT parquet)")
    params = {**tables, "cap": 20_000, "part": 0, "parts": 1}
    with Watch(folder) as watch, connect(engine, folder / "cap.spill") as con:
        copy(con, BRING["bottom_k"], params, folder / "brought.parquet")
    brought = duckdb.read_parquet(str(folder / "brought.parquet")).count("*").fetchall()[0][0]
    shutil.rmtree(folder)
    measured = ("seconds", "peak_mb", "spilled_mb")
    return {"pairs": pairs, "brought": brought} | {name: getattr(watch, name) for name in measured}


def show(console: Console, small: dict[str, Any], large: dict[str, Any], exponent: float) -> None:
    table = Table(title=f"{large['rows']:,} rows", title_justify="left")
    table.add_column("stage")
    for column in ("rows in", "seconds", "CPU s", "rows/s", "peak MB", "spilled MB", "exponent"):
        table.add_column(column, justify="right")
    before = {stage["stage"]: stage for stage in small["stages"]}
    for stage in large["stages"]:
        growth = _exponent(before[stage["stage"]], stage, small["rows"], large["rows"])
        table.add_row(
            stage["stage"],
            f"{stage['rows_in']:,}",
            f"{stage['seconds']:.1f}",
            f"{stage['cpu_seconds']:.1f}",
            f"{stage['rows_in'] / stage['seconds']:,.0f}",
            f"{stage['peak_mb']:,.0f}",
            f"{stage['spilled_mb']:,.0f}",
            f"{growth:.2f}" if stage["cpu_seconds"] > 1 else "",
        )
    table.add_row(
        "all",
        f"{large['rows']:,}",
        f"{large['seconds']:.1f}",
        f"{large['cpu_seconds']:.1f}",
        f"{large['rows_per_s']:,.0f}",
        f"{large['peak_mb']:,.0f}",
        f"{large['spilled_mb']:,.0f}",
        f"{exponent:.2f}",
    )
    console.print(table)
    far = Table(title="extrapolated, not run: one machine as this one", title_justify="left")
    far.add_column("rows")
    far.add_column("time", justify="right")
    for name, rows in FAR.items():
        seconds = large["seconds"] * (rows / large["rows"]) ** max(1.0, exponent)
        far.add_row(name, f"{seconds / 3600:,.0f} h")
    console.print(far)


def in_short(found: dict[str, Any]) -> str:
    """One line, so that hours of a larger size are not lost with the table."""
    return (
        f"{found['rows']:,} rows: {found['rows_per_s']:,.0f} rows/s,"
        f" {found['cpu_seconds']:,.0f} CPU s, peak {found['peak_mb']:,.0f} MB,"
        f" spilled {found['spilled_mb']:,.0f} MB"
    )


def _exponent(small: dict[str, Any], large: dict[str, Any], few: int, many: int) -> float:
    return math.log(large["cpu_seconds"] / small["cpu_seconds"]) / math.log(many / few)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--smaller", type=int, default=0, help="rows to compare with (rows / 3)")
    parser.add_argument("--memory-limit", default="4GB", help="of DuckDB")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder")
    parser.add_argument("--near-texts", type=float, default=0, help="dedupe.near_texts.threshold")
    parser.add_argument("--pairs", type=int, default=0, help="time the cap alone on so many")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    engine = {"memory_limit": options.memory_limit, "threads": options.threads}
    console = Console()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="curation-") as name:
        folder = Path(name)
        if options.pairs:
            found = cap(folder / "cap", options.pairs, EngineConfig.model_validate(engine))
            console.print(
                f"the cap on {found['pairs']:,} (pair, query) rows, limit {options.memory_limit}:"
                f" {found['seconds']:.1f} s, peak {found['peak_mb']:,.0f} MB, spilled"
                f" {found['spilled_mb']:,.0f} MB, {found['brought']:,} pairs brought in"
            )
        else:
            near = options.near_texts
            small = curate(folder / "small", options.smaller or options.rows // 3, near, engine)
            console.print(in_short(small))
            large = curate(folder / "large", options.rows, near, engine)
            exponent = _exponent(small, large, small["rows"], large["rows"])
            show(console, small, large, exponent)
            found = {**large, "growth_exponent": exponent, "smaller": small}
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
