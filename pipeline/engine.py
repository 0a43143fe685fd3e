"""DuckDB as the pipeline uses it: one way to connect, to run a file of SQL, to fail."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from pipeline import udfs
from pipeline.config import EngineConfig
from wit.errors import WitError
from wit.progress import Progress

SQL = Path(__file__).parent / "sql"
_POLL = 0.5  # seconds between two looks at the progress of a query


def connect(
    engine: EngineConfig, spill: Path, database: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """A database, in memory unless a file is named, with the captions' functions; what doesn't
    fit in the memory limit goes to `spill`."""
    con = duckdb.connect(
        str(database or ":memory:"),
        config={
            "memory_limit": engine.memory_limit,
            "threads": engine.threads,
            "temp_directory": str(spill),
            "autoinstall_known_extensions": False,  # nothing is fetched from the network
        },
    )
    for setting in ("enable_progress_bar = true", "enable_progress_bar_print = false"):
        con.execute(f"SET {setting}")
    udfs.register(con)
    con.execute(f"CREATE TEMP MACRO normalised_words(text) AS (\n{sql_text('words.sql')}\n)")
    return con


def sql_text(file: str) -> str:
    """The one SELECT of a file in pipeline/sql; the many COMMENTs of 95_comments.sql."""
    return (SQL / file).read_text("utf-8").strip()


def copy(
    con: duckdb.DuckDBPyConnection,
    file: str,
    params: Mapping[str, Any],
    target: Path,
    progress: Progress | None = None,
) -> None:
    """Write the rows of a SQL file to Parquet. The file orders them, so bytes don't depend on
    the number of threads; it takes of `params` what it names."""
    query = sql_text(file)
    named = set(re.findall(r"\$([a-z_]+)", query))
    used = {name: value for name, value in params.items() if name in named}
    wrapped = f"COPY ({query}) TO $target (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)"
    with polled(con, progress):
        con.execute(wrapped, {**used, "target": str(target)})


@contextmanager
def polled(con: duckdb.DuckDBPyConnection, progress: Progress | None) -> Iterator[None]:
    """Show how far the queries of a connection are while the context lasts."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def poll() -> None:
        while not done.wait(_POLL):
            percent = con.query_progress()
            if percent > 0:
                progress(percent, 100, unit="%")

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def engine_errors(what: str, engine: EngineConfig) -> Iterator[None]:
    """Turn a full memory or disk into one line; other errors of DuckDB are ours and pass."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise WitError(
            f"{what}: DuckDB needs more than {engine.memory_limit} or its disk is full: raise"
            f" --engine.memory_limit, lower --engine.threads or free disk ({_first(error)})"
        ) from None
    except duckdb.IOException as error:
        raise WitError(
            f"{what}: {_first(error)}: free disk space or mend the file, then run the same"
            " command again"
        ) from None


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
