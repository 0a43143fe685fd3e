"""What a query list holds, and what it covers of a sample of captions.

Printed as tables and written to OUTPUT/report.json; OUTPUT/coverage.parquet has the number of
captions of every query, so `captions = 0` are those that match nothing.
"""

from __future__ import annotations

import glob
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import EngineConfig
from pipeline.engine import connect, copy, engine_errors, sql_text
from pipeline.matching import match_captions
from pipeline.sql_command import table
from wit.config import write_json
from wit.errors import InputError
from wit.schema import COLUMN_NAMES
from wit.text import words

_COLUMNS = (
    "source",
    "offered",
    "too_many_words",
    "in_another_source",
    "over_budget",
    "listed",
    "least_score",
    "highest_score",
)
_LINES = ("source", "files", "lines", "malformed", "first")
_TOP = 3  # examples of each source


def report(output: Path, captions: Path | None, engine: EngineConfig) -> dict[str, Any]:
    """Print the report and write it to OUTPUT/report.json.

    Raises:
        InputError: there is no list, or no captions can be read.
    """
    try:
        record = json.loads((output / "config.json").read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        raise InputError(f"{output}: no finished query list: run `wit queries build`") from None
    found: dict[str, Any] = {
        "sources": _ordered(record["sources"], _COLUMNS),
        "lines": _ordered(record["lines"], _LINES),
    }
    if captions is not None:
        with engine_errors("wit queries report", engine):
            found |= _coverage(output, captions, engine)
    write_json({"fingerprint": record["fingerprint"], **found}, output / "report.json")
    for heading, rows in found.items():
        if rows:
            values = [list(row.values()) for row in rows]
            print(f"\n{heading.replace('_', ' ')}\n\n{table(list(rows[0]), values)}")
    return found


def _ordered(rows: list[dict[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    """With the columns in this order; JSON has sorted them."""
    return [{name: row[name] for name in columns} for row in rows]


def _coverage(output: Path, captions: Path, engine: EngineConfig) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=output, prefix=".report-") as folder:
        at = Path(folder)
        with connect(engine, at / "spill") as con:
            _write(at / "clean.parquet", "row", read_captions(con, captions))
            listed = pq.read_table(output / "queries.parquet", columns=["query"])
            _write(at / "queries.parquet", "query_id", listed.column("query").to_pylist())
            tables = {name: str(at / f"{name}.parquet") for name in ("clean", "queries")}
            match_captions(con, "ngrams", tables, at / "matches.parquet")
            files = {
                "list": str(output / "queries.parquet"),
                "matches": str(at / "matches.parquet"),
                "coverage": str(at / "coverage.parquet"),
                "clean": tables["clean"],
            }
            copy(
                con, "queries_matched.sql", _only(files, "list", "matches"), at / "coverage.parquet"
            )
            found = {
                "coverage": rows_of(con, "queries_coverage.sql", _only(files, "clean", "matches")),
                "coverage_by_source": rows_of(
                    con, "queries_coverage_sources.sql", _only(files, "coverage", "list", "matches")
                ),
                "match_nothing_for_example": rows_of(
                    con, "queries_unmatched.sql", {**_only(files, "coverage"), "top": _TOP}
                ),
            }
        (at / "coverage.parquet").replace(output / "coverage.parquet")
    return found


def read_captions(con: duckdb.DuckDBPyConnection, path: Path) -> list[str]:
    """The captions of a .txt (one a line), .csv, .tsv or .parquet file; null as none.

    Raises:
        InputError: unreadable, or without a caption column.
    """
    name = glob.escape(str(path))
    if not path.is_file():
        raise InputError(f"{path}: no such file: check --captions")
    try:
        if path.suffix == ".txt":
            return path.read_text("utf-8").splitlines()
        if path.suffix == ".parquet":
            rows = con.read_parquet(name)
        elif path.suffix in (".csv", ".tsv"):
            rows = con.read_csv(name, header=True, all_varchar=True)
        else:
            raise InputError(f"{path}: captions are .txt, .csv, .tsv or .parquet")
    except (duckdb.Error, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: not readable: {first}: write it again") from None
    by_name = {column.lower(): column for column in reversed(rows.columns)}
    column = next((by_name[n] for n in COLUMN_NAMES["text"] if n in by_name), None)
    if column is None:
        raise InputError(
            f"{path}: no caption column among {', '.join(rows.columns)}: name one text"
        )
    values = [value for (value,) in rows.select(duckdb.ColumnExpression(column)).fetchall()]
    lists = [value if isinstance(value, list) else [value] for value in values]
    return [text or "" for texts in lists for text in texts]


def _write(path: Path, number: str, texts: list[str]) -> None:
    numbers = pa.array(range(len(texts)), pa.int32())
    normalised = pa.array([" ".join(words(text)) for text in texts], pa.string())
    pq.write_table(pa.table({number: numbers, "words": normalised}), path)


def _only(files: dict[str, str], *names: str) -> dict[str, str]:
    return {name: files[name] for name in names}


def rows_of(
    con: duckdb.DuckDBPyConnection, file: str, params: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows of a SQL file, each a column -> value."""
    con.execute(sql_text(file), params)
    names = [column[0] for column in con.description or []]
    return [dict(zip(names, row, strict=True)) for row in con.fetchall()]
