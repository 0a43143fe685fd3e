"""DuckDB as the pipeline uses it: one way to connect, to run a file of SQL, to fail."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
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
    execute(con, wrapped, {**used, "target": str(target)}, progress)


def execute(
    con: duckdb.DuckDBPyConnection,
    query: str,
    params: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> duckdb.DuckDBPyConnection:
    """`con.execute` that shows how far the query is, and that Ctrl-C ends at once: in the main
    thread DuckDB would look for it only between tasks, which may take minutes."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(con.execute, query, params)
        try:
            while not wait([running], _POLL).done:
                percent = con.query_progress()
                if progress is not None and percent > 0:
                    progress(percent, 100, unit="%")
        except BaseException:
            while not running.done():  # again where it had not begun yet
                con.interrupt()
                wait([running], 0.05)
            raise
        return running.result()


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
