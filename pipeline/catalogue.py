"""Stage 95: corpus.duckdb, the tables that people ask about a corpus.

Everything is copied into the one file, so it opens from any folder and on another machine.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.config import EngineConfig
from pipeline.context import Context, Counts
from pipeline.engine import connect, copy, sql_text
from wit.config import fingerprint
from wit.errors import CorpusError
from wit.progress import Progress
from wit.schema import REASONS, Reason

NAME = "corpus.duckdb"
INDEXES = "browse"  # folder of what `wit browse` makes of a corpus; it may go at any time
# In the order they are made: later ones read earlier ones. The SQL of each is 95_NAME.sql.
TABLES = (
    "pairs",
    "matches",
    "queries",
    "shards",
    "stages",
    "reasons",
    "domains",
    "languages",
    "words",
    "image_sizes",
    "duplicates",
    "eval_overlaps",  # `overlaps` is a word of SQL
)
SQL_FILES = (*(f"95_{name}.sql" for name in TABLES), "95_comments.sql", "95_queries_file.sql")


def catalogue(context: Context) -> Counts:
    """Write `corpus.duckdb` and `queries.parquet`; counts are those of the pairs."""
    params: dict[str, dict[str, Any]] = {
        "pairs": {"pairs": str(context.corpus / "pairs" / "*.parquet")},
        "matches": {"match": context.table("20_match")},
        "queries": {"queries": context.table("18_queries")},
        "shards": {"index": index_files(context.corpus)},
        "eval_overlaps": {"overlaps": str(context.corpus / "overlaps" / "*.parquet")},
        "words": {"clean": context.table("15_clean")},
        "duplicates": {"keep": context.config.dedupe.keep},
    }
    total = write(
        context.out, context.config.engine, params, _reports(context),
        meanings(context.config.drop), context.progress,
    )  # fmt: skip
    return Counts(total, total)


def write(
    out: Path,
    engine: EngineConfig,
    params: Mapping[str, dict[str, Any]],
    reports: pa.Table,
    meanings: pa.Table,
    progress: Progress,
) -> int:
    """Write `corpus.duckdb` and `queries.parquet` into `out`; returns the number of rows.

    Args:
        params: of the SQL file of each table.
        reports: what each stage counted: nth, stage, rows_in, rows_out.
        meanings: see `meanings`.
    """
    path = out / NAME
    path.unlink(missing_ok=True)  # of a killed try
    with connect(engine, out / ".spill", path) as con:
        con.register("reports", reports)
        con.register("meanings", meanings)
        for done, name in enumerate(TABLES):
            con.execute(f"CREATE TABLE {name} AS {sql_text(f'95_{name}.sql')}", params.get(name))
            progress(done + 1, len(TABLES), unit="tables")
        con.execute(sql_text("95_comments.sql"))
        con.unregister("reports")
        con.unregister("meanings")
        copy(con, "95_queries_file.sql", {}, out / "queries.parquet")
        con.execute("CHECKPOINT")
        rows: int = con.table("pairs").count("*").fetchall()[0][0]
    return rows


def index_files(corpus: Path) -> list[str]:
    """The indices of shards/ and val/."""
    found = (corpus / folder / "index.parquet" for folder in ("shards", "val"))
    return [glob.escape(str(path)) for path in found if path.exists()]


def _reports(context: Context) -> pa.Table:
    """What each stage counted, from its stage.json."""
    records = [
        json.loads((at / "stage.json").read_text()) for at in sorted(context.inputs.values())
    ]
    return reports([(row["name"], row["rows_in"], row["rows_out"]) for row in records])


def reports(counted: Sequence[tuple[str, int, int]]) -> pa.Table:
    """Name, rows in and rows out of each stage, in their order."""
    names, rows_in, rows_out = zip(*counted, strict=True)
    return pa.table(
        {
            "nth": pa.array(range(len(counted)), pa.int32()),
            "stage": pa.array(names, pa.string()),
            "rows_in": pa.array(rows_in, pa.int64()),
            "rows_out": pa.array(rows_out, pa.int64()),
        }
    )


def meanings(rules: Mapping[str, str]) -> pa.Table:
    """Every reason in its order, with its sentence; that of a user's rule is its SQL."""
    meanings: dict[str, str] = {}
    for reason, meaning in REASONS.items():
        if reason == Reason.NO_QUERY:  # the user's rules come before it
            meanings |= {name: f"your rule: {rule}" for name, rule in rules.items()}
        meanings[reason.value] = meaning
    return pa.table(
        {
            "nth": pa.array(range(len(meanings)), pa.int32()),
            "reason": pa.array(list(meanings), pa.string()),
            "meaning": pa.array(list(meanings.values()), pa.string()),
        }
    )


def digest(con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Any]]:
    """Table -> {"rows": int, "digest": hex} of an open catalogue; equal content, equal digest.

    Two builds of the same corpus differ in the bytes of corpus.duckdb, whose header holds a
    random id, but not in this.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(TABLES):
        try:
            row = con.execute(sql_text("95_digest.sql"), {"table": name}).fetchall()[0]
        except duckdb.CatalogException:
            continue  # a missing table is missing from the digests too
        found[name] = {"rows": row[0], "digest": fingerprint(list(row))}
    return found


def open_catalogue(corpus: Path) -> duckdb.DuckDBPyConnection:
    """Open the catalogue of a finished corpus: read-only, and closed to every other file.

    Raises:
        CorpusError: there is none, or it is not a database.
    """
    path = corpus / NAME
    if not path.is_file():
        raise CorpusError(f"{path}: no such catalogue: run `wit shards --corpus {corpus}`")
    try:
        con = duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise CorpusError(f"{path}: {first}: delete it and run `wit shards` again") from None
    for setting in (
        "enable_progress_bar = true",  # for `execute`; nothing is printed
        "enable_progress_bar_print = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        con.execute(f"SET {setting}")
    return con
