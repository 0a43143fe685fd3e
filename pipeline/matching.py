"""Stage 20: which query occurs in which caption, with one of three engines.

`ngrams` and `sql` give the same rows; `aho_corasick` finds more in scripts without spaces.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from duckdb.func import PythonUDFType

from pipeline.config import ShardsConfig
from pipeline.engine import copy, sql_text
from pipeline.ngrams import QueryTable
from pipeline.parts import Given, Make
from pipeline.queries import MAX_WORDS
from wit.progress import Progress

MORE_SQL = ("20_match_plain.sql", "20_queries.sql")

Find = Callable[[pa.StringArray], pa.ListArray]


def params(config: ShardsConfig) -> dict[str, Any]:
    """What decides the matches: whether scripts without spaces are matched inside of words."""
    return {"unspaced": config.match.engine == "aho_corasick"}


def maker(config: ShardsConfig) -> Make:
    """What makes a part: row, query_id in this order; a query stands once for each caption."""
    return {"ngrams": _by_ngrams, "sql": _by_sql, "aho_corasick": _by_aho_corasick}[
        config.match.engine
    ]


def _by_ngrams(
    con: duckdb.DuckDBPyConnection, given: Given, target: Path, progress: Progress | None
) -> None:
    match_captions(con, "ngrams", given["params"], target, progress)


def _by_sql(
    con: duckdb.DuckDBPyConnection, given: Given, target: Path, progress: Progress | None
) -> None:
    match_captions(con, "sql", given["params"], target, progress)


def _by_aho_corasick(
    con: duckdb.DuckDBPyConnection, given: Given, target: Path, progress: Progress | None
) -> None:
    match_captions(con, "aho_corasick", given["params"], target, progress)


def match_captions(
    con: duckdb.DuckDBPyConnection,
    engine: str,
    tables: Given,
    target: Path,
    progress: Progress | None = None,
) -> None:
    """The matches of any tables `clean` (row, words) and `queries` (query_id, words)."""
    if engine == "sql":
        copy(con, "20_match_plain.sql", {**tables, "max_words": MAX_WORDS}, target, progress)
        return
    register(con, finder(con, engine, tables["queries"]))
    copy(con, "20_match.sql", {"clean": tables["clean"]}, target, progress)


def finder(con: duckdb.DuckDBPyConnection, engine: str, queries: str) -> Find:
    """The function that gives the query_ids of each caption of a column.

    Raises:
        MissingExtra: aho_corasick without its package.
    """
    found = con.sql(sql_text("20_queries.sql"), params={"queries": queries})
    listed = found.to_arrow_table().column("words").combine_chunks()
    table = QueryTable(listed)
    if engine == "ngrams":
        return table.find
    from pipeline.unspaced import UnspacedFinder

    return UnspacedFinder(listed, table.find).find


def register(con: duckdb.DuckDBPyConnection, find: Find) -> None:
    """Make `caption_queries` known to a connection."""

    def caption_queries(words: pa.ChunkedArray) -> pa.ListArray:
        return find(words.combine_chunks())

    kind = PythonUDFType.ARROW
    con.create_function("caption_queries", caption_queries, ["VARCHAR"], "INTEGER[]", type=kind)
