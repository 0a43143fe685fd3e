"""The catalogue as the page reads it: lists of pairs, one pair with all that is known, free SQL.

One read-only database that is closed to every other file, its settings locked; each request has a
connection of its own on it, and is stopped when its time is up.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eval.browse import search
from pipeline.catalogue import NAME, open_catalogue
from pipeline.engine import sql_text
from pipeline.overlaps import in_words
from wit.errors import InputError
from wit.manifest import PROVENANCE

LONGEST = 2000  # characters of a cell in an answer of free SQL
ANSWER = 4 * 2**20  # characters of such an answer; the row that passes them is its last


class Reader:
    """Reads one corpus.

    Args:
        corpus: a finished corpus.
        words: the database of `eval.browse.postings`.
        memory: that DuckDB may use, e.g. "2GB".
        seconds: that a question may take.

    Raises:
        CorpusError: no catalogue.
    """

    def __init__(self, corpus: Path, words: Path, memory: str, seconds: float) -> None:
        self.corpus, self.seconds = corpus, seconds
        self._con = _open(corpus, words, memory)
        self.columns = {c["column_name"]: c["data_type"] for c in self.rows("browse_columns.sql")}
        self.counts = self.rows("browse_counts.sql")[0]
        (size,) = self.rows("browse_size.sql")
        self.size = float(size["size"] or 1)

    def close(self) -> None:
        self._con.close()

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection whose query is stopped when its time is up.

        Raises:
            InputError: what DuckDB says of the query, in one line.
        """
        cursor = self._con.cursor()
        timer = threading.Timer(self.seconds, cursor.interrupt)
        timer.daemon = True
        timer.start()
        try:
            cursor.execute("USE catalogue")
            yield cursor
        except duckdb.InterruptException:
            raise InputError(
                f"stopped after {self.seconds:g} seconds: ask for less, or start wit browse with a"
                " higher --seconds"
            ) from None
        except duckdb.Error as error:
            raise InputError(_one_line(error)) from None
        finally:
            timer.cancel()
            cursor.close()

    def rows(self, file: str, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """The answer of a file of pipeline/sql."""
        with self.cursor() as cursor:
            found = cursor.execute(sql_text(file), params)
            names = [column[0] for column in found.description or []]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def find(
        self, text: str, asked: Any, order: Sequence[str], limit: int, offset: int
    ) -> tuple[list[int], int]:
        """Rows whose captions hold the words and that pass the filters, the best first; how many
        there are.

        Raises:
            InputError: a filter that is none.
        """
        query = search.filters(asked, self.columns)
        terms = search.terms(text)
        best, count = search.ranked(terms, query, search.order_by(order, self.columns))
        params = dict(query.params)
        page: dict[str, Any] = {"limit": limit, "offset": offset}
        if "$size" in best:
            page |= {"rows": self.counts["rows"], "size": self.size}
        with self.cursor() as cursor:
            found = [row for (row,) in cursor.execute(best, params | page).fetchall()]
            total = cursor.execute(count, params).fetchall()[0][0]
        return found, total

    def matching(self, asked: Any) -> Any:
        """Rows in the shards that pass the filters, as an array of int64 (N,)."""
        query = search.filters(asked, self.columns)
        with self.cursor() as cursor:
            found = cursor.execute(
                f"SELECT row FROM pairs WHERE key IS NOT NULL AND {query.where}", query.params
            )
            return found.fetchnumpy()["row"]

    def samples(self) -> tuple[Any, Any]:
        """Rows (M,) and keys (M,) of the pairs in the shards, in the order of their keys."""
        with self.cursor() as cursor:
            found = cursor.execute(sql_text("browse_keys.sql")).fetchnumpy()
        return found["row"], np.array(found["key"].tolist(), dtype="S")

    def cards(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """What lists show of pairs, in the order of `rows`."""
        found = {card["row"]: card for card in self.rows("browse_cards.sql", {"rows": list(rows)})}
        return [plain_row(found[row]) for row in rows if row in found]

    def pair(self, row: int) -> dict[str, Any]:
        """What the catalogue knows of a row: queries, what gave way to it, what it gave way to.

        Raises:
            InputError: there is none.
        """
        found = self.rows("browse_pair.sql", {"row": row})
        if not found:
            raise InputError(f"there is no row {row}")
        pair = found[0]
        kept = self.rows("browse_pair_kept.sql", {"row": row})
        if kept and kept[0]["phash"] is not None and pair["phash"] is not None:
            kept[0]["distance"] = (kept[0]["phash"] ^ pair["phash"]).bit_count()
        overlaps = self.rows("browse_pair_overlaps.sql", {"row": row})
        for one in overlaps:
            one["words"] = in_words(one["how"], one["distance"])
        return {
            "pair": plain_row(pair),
            "queries": self.rows("browse_pair_queries.sql", {"row": row}),
            "gone": self.rows("browse_pair_gone.sql", {"uid": pair["uid"]}),
            "kept": plain_row(kept[0]) if kept else None,
            "overlaps": overlaps,
        }

    def fetched(self, url: str | None) -> dict[str, Any] | None:
        """Where the URL led, what the server said and when; reads the whole of a file."""
        path = self.corpus / PROVENANCE
        if url is None or not path.is_file():
            return None
        table = pq.read_table(path, filters=pc.field("url") == url.strip(" \t\r\n"))
        return plain_row(table.slice(0, 1).to_pylist()[0]) if table.num_rows else None

    def sql(self, query: str, most: int) -> dict[str, Any]:
        """The answer to one SELECT: columns, at most `most` rows, whether there are more. Rows are
        fetched and cut one by one, for each of their cells may be large.

        Raises:
            InputError: more than one statement, one that is no SELECT, or one that fails.
        """
        start = time.perf_counter()
        with self.cursor() as cursor:
            statements = cursor.extract_statements(query)
            # EXPLAIN is none: EXPLAIN ANALYZE runs what follows it, and COPY may write to the files
            # that are attached, whatever else is closed
            if [one.type for one in statements] != [duckdb.StatementType.SELECT]:
                raise InputError("write one SELECT: this page only reads")
            found = cursor.execute(statements[0])
            names = [column[0] for column in found.description or []]
            rows, size = list[list[Any]](), 0
            row = found.fetchone()
            while row is not None and len(rows) < most and size < ANSWER:
                rows.append([_cell(value) for value in row])
                size += sum(len(str(cell)) for cell in rows[-1])
                row = found.fetchone()
        seconds = time.perf_counter() - start
        return {"columns": names, "rows": rows, "more": row is not None, "seconds": seconds}


def _open(corpus: Path, words: Path, memory: str) -> duckdb.DuckDBPyConnection:
    """A database of its own with the catalogue and the words, both for reading only.

    What doesn't fit in memory fails: a visitor's SQL must not fill the disk.
    """
    open_catalogue(corpus).close()  # says what is wrong with it, if anything is
    con = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": memory,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
    for name, path in (("catalogue", corpus / NAME), ("words", words)):
        quoted = str(path).replace("'", "''")
        con.execute(f"ATTACH '{quoted}' AS {name} (READ_ONLY)")
    for setting in ("enable_external_access = false", "lock_configuration = true"):
        con.execute(f"SET {setting}")
    return con


def plain_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON takes it."""
    return {name: plain(value) for name, value in row.items()}


def plain(value: Any) -> Any:
    """A value as JSON takes it; whole numbers that JavaScript would round become text."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    return str(value)


def _cell(value: Any) -> Any:
    if isinstance(value, str | bytes | list | tuple):
        value = value[: LONGEST + 1]
    found = plain(value)
    if isinstance(found, list | dict):
        found = str(found)
    return found[:LONGEST] + "…" if isinstance(found, str) and len(found) > LONGEST else found


def _one_line(error: duckdb.Error) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:400]
