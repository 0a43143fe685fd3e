"""Stage 18: the query list, given by the user or made from the corpus' own frequent words."""

from __future__ import annotations

import glob
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.config import ShardsConfig
from pipeline.context import Context, Counts
from pipeline.engine import copy
from wit.errors import InputError
from wit.text import words

MAX_WORDS = 8  # of a query; longer names hardly ever stand in a caption whole
LISTED = pa.schema(
    [
        ("rank", pa.int32()),
        ("query", pa.string()),
        ("words", pa.string()),
        ("source", pa.string()),
        ("count", pa.int64()),
        ("score", pa.float64()),
    ]
)

_Row = tuple[str, str, int | None, float | None]  # query, source, count, score


def files(config: ShardsConfig) -> list[Path]:
    """The list that the user gave, if any."""
    return [config.queries] if config.queries else []


def params(config: ShardsConfig) -> dict[str, Any]:
    """What a list from the corpus depends on; a given list depends on its file alone."""
    if config.queries:
        return {"max_words": MAX_WORDS}
    return config.match.model_dump(exclude={"engine"})


def queries(context: Context) -> Counts | None:
    """Write query_id, query, words, source, rank, count, score.

    Of a given list, queries that have no word, more than eight, or repeat an earlier one are
    left out and counted.
    """
    target, path = context.out / "rows.parquet", context.config.queries
    with context.connect() as con:
        if path is None:
            tables = {"clean": context.table("15_clean")}
            copy(con, "18_queries_corpus.sql", {**tables, **context.params}, target)
            return None
        listed = read_list(con, path)
        con.register("listed", listed)
        copy(con, "18_queries_given.sql", context.params, target)
    return _counts(listed.column("words").to_pylist(), path)


def _counts(normalised: list[str], path: Path) -> Counts:
    reasons: Counter[str] = Counter()
    seen: set[str] = set()
    for query in normalised:
        if not query:
            reasons["no_word"] += 1
        elif query.count(" ") >= MAX_WORDS:
            reasons["too_many_words"] += 1
        elif query in seen:
            reasons["repeated"] += 1
        seen.add(query)
    kept = len(normalised) - sum(reasons.values())
    if not kept:
        raise InputError(f"{path}: no query in it: write one query of 1 to 8 words per line")
    return Counts(len(normalised), kept, dict(sorted(reasons.items())))


def read_list(con: duckdb.DuckDBPyConnection, path: Path) -> pa.Table:
    """A list as rank, query, words, source, count, score; .txt has one query a line."""
    if path.suffix == ".parquet":
        rows = _read_parquet(con, path)
    elif path.suffix == ".txt":
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 ({error}): convert it") from None
        rows = [(line.strip(), "given", None, None) for line in lines if line.strip()]
    else:
        raise InputError(f"{path}: a query list is .txt (one query a line) or .parquet")
    return pa.Table.from_arrays(
        [
            pa.array(range(len(rows)), pa.int32()),
            pa.array([row[0] for row in rows], pa.string()),
            pa.array([" ".join(words(row[0])) for row in rows], pa.string()),
            pa.array([row[1] for row in rows], pa.string()),
            pa.array([row[2] for row in rows], pa.int64()),
            pa.array([row[3] for row in rows], pa.float64()),
        ],
        schema=LISTED,
    )


def _read_parquet(con: duckdb.DuckDBPyConnection, path: Path) -> list[_Row]:
    try:
        table = con.read_parquet(glob.escape(str(path))).to_arrow_table()
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: not readable as Parquet: {first}: write it again") from None
    if "query" not in table.column_names or table.schema.field("query").type != pa.string():
        present = ", ".join(f"{field.name} ({field.type})" for field in table.schema)
        raise InputError(f"{path}: no text column query among {present}: rename one to query")
    found = table.column("query").to_pylist()
    size = len(found)
    source = _column(table, "source", pa.string(), path) or ["given"] * size
    count = _column(table, "count", pa.int64(), path) or [None] * size
    score = _column(table, "score", pa.float64(), path) or [None] * size
    columns = zip(found, source, count, score, strict=True)
    return [(q or "", s or "given", n, x) for q, s, n, x in columns]


def _column(table: pa.Table, name: str, kind: pa.DataType, path: Path) -> list[Any] | None:
    if name not in table.column_names:
        return None
    try:
        values: list[Any] = table.column(name).cast(kind).to_pylist()
    except pa.ArrowException as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"{path}: column {name} is not {kind}: {first}: write it as {kind}, or leave it out"
        ) from None
    return values
