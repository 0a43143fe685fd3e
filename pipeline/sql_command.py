"""`wit sql`: a question in SQL over the catalogue of a corpus."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from wit.config import Settings, load
from wit.errors import ConfigError, InputError
from wit.progress import Progress

if TYPE_CHECKING:
    import duckdb

_BATCH = 1000  # rows fetched at a time
_WIDEST = 60  # characters of a cell in a table


class SqlConfig(Settings):
    """Ask the catalogue of a corpus a question in SQL.

    The database is open for reading only. Without a query the tables and columns are listed.
    """

    query: CliPositionalArg[str] = ""
    """one SELECT, in DuckDB's dialect"""
    corpus: Path = Path("data/corpus")
    """corpus directory"""
    rows: Annotated[int, Field(ge=0)] = 40
    """rows that the table shows; 0 shows all"""
    json_lines: Annotated[bool, Field(alias="json")] = False
    """print JSON, one object per row, instead of a table"""
    csv: bool = False
    """print CSV instead of a table"""
    diagram: Path | None = None
    """write the tables and how they hang together to this file, as SVG"""


def main(argv: Sequence[str]) -> int:
    """Run one query and print what it returns."""
    config = load(SqlConfig, argv, prog="wit sql")
    if config.json_lines and config.csv:
        raise ConfigError("--json and --csv exclude each other: give one")
    import duckdb

    from pipeline.catalogue import open_catalogue
    from pipeline.engine import execute, sql_text

    with open_catalogue(config.corpus) as con:
        if config.diagram is not None:
            from pipeline.diagram import diagram

            config.diagram.write_text(diagram(con), "utf-8")
            return 0
        progress = Progress("query")
        try:
            execute(con, config.query or sql_text("sql_tables.sql"), progress=progress)
            progress.clear()
            _print(con, config)
        except duckdb.Error as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise InputError(
                f"{' '.join(lines[:2])}: mend the query (`wit sql` lists tables and columns)"
            ) from None
    return 0


def _print(con: duckdb.DuckDBPyConnection, config: SqlConfig) -> None:
    names = [column[0] for column in con.description or []]
    if config.json_lines:
        for row in _rows(con):
            print(json.dumps(dict(zip(names, row, strict=True)), default=str, ensure_ascii=False))
    elif config.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(_rows(con))
    else:
        shown = list(islice(_rows(con), config.rows + 1 if config.rows and config.query else None))
        limit = config.rows if config.rows and config.query else len(shown)
        print(table(names, shown[:limit]))
        if len(shown) > limit:
            print(f"… more rows than {limit}; --rows 0 shows all")


def _rows(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while batch := con.fetchmany(_BATCH):
        yield from batch


def table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows as text in columns: numbers to the right, long cells cut, one line per row."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    right = [
        bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows)
        for i in range(len(names))
    ]

    def line(values: Sequence[str]) -> str:
        padded = (
            value.rjust(width) if to_right else value.ljust(width)
            for value, width, to_right in zip(values, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(names), "  ".join("─" * width for width in widths), *map(line, cells)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        # A caption may hold anything; a control character must not reach the terminal.
        text = "".join(c if c.isprintable() else " " for c in str(value))
        return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
