"""Words and word pairs of any amount of text, counted out of core.

A part of the text is counted in batches by DuckDB into small Parquet files; the files of all parts
are added up at the end, spilling where they must. So memory is bounded by --engine.memory_limit
whatever the size of the text, and a run that was killed goes on with the parts that it lacks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import duckdb
import pyarrow as pa

from pipeline.config import EngineConfig
from pipeline.engine import connect, copy
from pipeline.querylist.dump import Part, lines
from pipeline.querylist.lines import Tally, write_tally
from pipeline.task import prepare, processes
from wit.progress import Progress
from wit.text import words

BATCH = 8 << 20  # characters that are counted at once


def count_parts(parts: list[Part], work: Path, engine: EngineConfig, progress: Progress) -> None:
    """Count every part that is not counted yet: WORK/NAME.NUMBER/{words,pairs}-*.parquet."""
    for left in (*work.glob(".alive-*"), *work.glob("*.tmp")):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    todo = [part for part in parts if not folder(part, work).is_dir()]
    total = sum(part.end - part.start for part in parts)
    done = total - sum(part.end - part.start for part in todo)
    workers = min(engine.threads, len(todo))
    if workers <= 1:
        for part in todo:
            done += count_part(part, work, engine)
            progress(done, total, unit="bytes")
        return
    alive = work / f".alive-{os.getpid()}"  # workers end when it is gone, or their parent
    alive.mkdir()
    with ProcessPoolExecutor(workers, processes(), initializer=prepare, initargs=(alive,)) as pool:
        try:
            waiting: set[Future[int]] = {
                pool.submit(count_part, part, work, _share(engine, workers)) for part in todo
            }
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                done += sum(future.result() for future in finished)
                progress(done, total, unit="bytes")
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            alive.rmdir()


def folder(part: Part, work: Path) -> Path:
    """Where the counts of a part lie once they are whole."""
    return work / f"{part.path.name}.{part.number:05}"


def count_part(part: Part, work: Path, engine: EngineConfig) -> int:
    """Count one part; returns its bytes."""
    out = folder(part, work)
    aside = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    with connect(engine.model_copy(update={"threads": 1}), aside / ".spill") as con:
        tally = Tally()
        for number, batch in enumerate(_batches(part, tally)):
            con.register("lines", pa.table({"words": batch}))
            for what in ("words", "pairs"):
                copy(con, f"queries_{what}_part.sql", {}, aside / f"{what}-{number:05}.parquet")
            con.unregister("lines")
    shutil.rmtree(aside / ".spill", ignore_errors=True)
    write_tally(tally, aside)
    for path in aside.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    aside.rename(out)
    return part.end - part.start


def add_up(
    con: duckdb.DuckDBPyConnection, folders: list[Path], least: dict[str, int], out: Path
) -> int:
    """The sums over all parts: OUT/words.parquet and OUT/pairs.parquet; returns all words."""
    total = 0
    for what in ("words", "pairs"):
        found = [str(path) for at in folders for path in sorted(at.glob(f"{what}-*.parquet"))]
        target = out / f"{what}.parquet"
        copy(con, "queries_sum.sql", {"parts": found, "min_count": least[what]}, target)
        if what == "words":
            parts = con.read_parquet(found)
            total = int(parts.aggregate("coalesce(sum(count), 0)").fetchall()[0][0])
    return total


def _batches(part: Part, tally: Tally) -> Iterator[pa.Array]:
    """Normalised lines, about BATCH characters at a time; at least one batch, if empty."""
    held: list[str] = []
    size, given = 0, False
    for line in lines(part, tally):
        held.append(" ".join(words(line)))
        size += len(held[-1])
        if size >= BATCH:
            yield pa.array(held, pa.string())
            held, size, given = [], 0, True
    if held or not given:
        yield pa.array(held, pa.string())


def _share(engine: EngineConfig, processes: int) -> EngineConfig:
    """The memory of one of several processes."""
    number, unit = engine.memory_limit.rstrip("iBKMGT "), engine.memory_limit.lstrip("0123456789. ")
    return engine.model_copy(update={"memory_limit": f"{float(number) / processes:.3f}{unit}"})
