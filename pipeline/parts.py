"""The unit of work: one file of a work table, made by itself and made again by itself.

A part knows all that it needs, so it can be made in this process, in another or on another
machine (`pipeline.ray_engine`), and comes out with the same bytes. It is written under a name
of its own and renamed when it is whole: a part whose file is there is done, and two that make
the same part at once don't meet.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from pipeline.config import EngineConfig
from wit.errors import WitError
from wit.progress import Progress

if TYPE_CHECKING:
    import duckdb

    from pipeline.context import Context

KEYS_PER_ROWS = 4  # a part by keys holds narrow rows: so many more of them than a file
Given = Mapping[str, Any]
Make = Callable[["duckdb.DuckDBPyConnection", Given, Path, Progress | None], None]


@dataclass(frozen=True)
class Part:
    """One file to make.

    Attributes:
        target: the file.
        make: a module's function that writes `target` from `given`; it must be importable where
            the part is made.
        given: what it is told; plain values.
    """

    target: Path
    make: Make
    given: Given


def key_parts(
    rows: int, engine: EngineConfig, times: int = KEYS_PER_ROWS
) -> dict[str, dict[str, int]]:
    """Work file -> `$part` and `$parts` of a stage that is cut by keys, for an input of `rows`; a
    part has `times` as many rows as a file."""
    parts = max(1, -(-rows // (times * engine.partition_rows)))
    return {f"{i:05}.parquet": {"part": i, "parts": parts} for i in range(parts)}


def file_ranges(folder: Path) -> dict[str, tuple[int, int]]:
    """File of a work table that is cut as `10_ingest` -> its first row and the one after its last,
    from the files' counts."""
    ranges, first = {}, 0
    for path in sorted(folder.glob("*.parquet")):
        last = first + pq.read_metadata(path).num_rows
        ranges[path.name] = (first, last)
        first = last
    return ranges


def make_sql(
    con: duckdb.DuckDBPyConnection,
    given: Given,
    target: Path,
    progress: Progress | None,
) -> None:
    """Write the rows of a file of pipeline/sql; `given` has `file`, `macros` and `params`."""
    from pipeline.engine import copy

    if given.get("macros"):
        con.execute(given["macros"])
    copy(con, given["file"], given["params"], target, progress)


def make(part: Part, engine: EngineConfig, progress: Progress | None = None) -> None:
    """Make one part: written aside, flushed to disk, renamed."""
    from pipeline.engine import connect

    mark = f".{part.target.name}.{secrets.token_hex(8)}"
    making, spill = (part.target.with_name(f"{mark}.{kind}") for kind in ("making", "spill"))
    try:
        with connect(engine, spill) as con:
            part.make(con, part.given, making, progress)
        with making.open("rb") as file:
            os.fsync(file.fileno())
        making.replace(part.target)
    finally:
        making.unlink(missing_ok=True)


def link_standing(context: Context, target: Path) -> None:
    """Take a part over from the result that stands, when it was made of the same things."""
    name = target.name
    same = name in context.standing and context.standing[name] == context.parts[name]
    if same and not target.exists():
        with suppress(OSError):  # a store without links: it is made again
            os.link(context.folder / name, target)


def make_all(
    parts: Sequence[Part], engine: EngineConfig, progress: Progress, python: bool = False
) -> None:
    """Make the parts whose file is not there yet, by the engine that the config names.

    Raises:
        WitError: a process died, or what a part raises.
    """
    todo = [part for part in parts if not part.target.exists()]
    if engine.name == "ray" and todo:
        from pipeline import ray_engine

        ray_engine.make_all(todo, engine, progress)
    elif python and len(todo) > 1 and engine.threads > 1:
        _in_processes(todo, engine, progress)
    else:
        for done, part in enumerate(todo):
            make(part, engine, progress if len(todo) == 1 else None)
            progress(done + 1, len(todo), unit="parts")


def _in_processes(todo: Sequence[Part], engine: EngineConfig, progress: Progress) -> None:
    """One thread each, since Python's lock lets one thread of a process work at a time."""
    from pipeline.task import prepare, processes

    workers = min(engine.threads, len(todo))
    share = engine.shared(workers)
    pool = ProcessPoolExecutor(
        workers,
        processes(),
        initializer=prepare,
        initargs=(todo[0].target.parent,),
    )
    with _closing(pool):
        waiting, running, done = iter(todo), set[Future[None]](), 0
        while True:
            for part in waiting:
                running.add(pool.submit(make, part, share))
                if len(running) > workers:
                    break
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
                done += 1
                progress(done, len(todo), unit="parts")


@contextmanager
def _closing(pool: ProcessPoolExecutor) -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise WitError(
            "a working process died, perhaps for want of memory: lower --engine.threads, then run"
            " the same command again: what is done is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
