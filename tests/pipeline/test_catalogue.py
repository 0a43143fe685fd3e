"""corpus.duckdb: complete, commented, movable, and equal for equal corpora."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from pipeline.catalogue import TABLES, digest, open_catalogue
from pipeline.diagram import RELATIONS, diagram
from wit import manifest
from wit.errors import CorpusError
from wit.schema import PAIRS, REASONS


@pytest.fixture
def con(corpus: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_catalogue(corpus) as con:
        yield con


def test_every_table_and_column_has_a_comment(con: duckdb.DuckDBPyConnection) -> None:
    tables = dict(con.execute("SELECT table_name, comment FROM duckdb_tables()").fetchall())
    assert sorted(tables) == sorted(TABLES)
    assert all(tables.values())
    columns = con.execute(
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE schema_name = 'main'"
        " AND NOT internal"
    ).fetchall()
    assert [column for column in columns if not column[2]] == []
    documented = {name: comment for table, name, comment in columns if table == "pairs"}
    assert documented == {name: meaning for name, _, meaning in PAIRS}


def test_it_opens_from_any_folder(corpus: Path, tmp_path: Path) -> None:
    """Nothing in it points back to the corpus."""
    shutil.copy(corpus / "corpus.duckdb", tmp_path / "moved.duckdb")
    with duckdb.connect(str(tmp_path / "moved.duckdb"), read_only=True) as con:
        con.execute("SET enable_external_access = false")
        for table in set(TABLES) - {"eval_overlaps"}:  # the sample names no set
            assert con.table(table).count("*").fetchall()[0][0] > 0
        assert con.execute("SELECT count(*) FROM duckdb_views() WHERE NOT internal").fetchall() == [
            (0,)
        ]


def test_a_program_elsewhere_reads_every_table(corpus: Path, tmp_path: Path) -> None:
    """As a shell or a BI tool would: by its path, read-only, in another folder."""
    script = (
        "import duckdb, json, sys\n"
        "con = duckdb.connect(sys.argv[1], read_only=True)\n"
        "names = [name for (name,) in con.execute('SHOW TABLES').fetchall()]\n"
        "print(json.dumps({n: len(con.execute(f'FROM {n} LIMIT 2').fetchall()) for n in names}))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-c", script, str(corpus / "corpus.duckdb")],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(answer.stdout)
    assert sorted(found) == sorted(TABLES)
    assert all(rows for name, rows in found.items() if name != "eval_overlaps")


def test_relations_hold(con: duckdb.DuckDBPyConnection) -> None:
    for child, parent in RELATIONS:
        (table, column), (other, key) = child.split("."), parent.split(".")
        missing = con.execute(
            f"SELECT count(*) FROM {table} AS a WHERE {column} IS NOT NULL"
            f" AND NOT EXISTS (SELECT 1 FROM {other} AS b WHERE b.{key} = a.{column})"
        ).fetchall()
        assert missing == [(0,)], f"{child} -> {parent}"


def test_the_diagram_is_current(con: duckdb.DuckDBPyConnection) -> None:
    drawn = Path(__file__).parents[2] / "docs" / "catalogue.svg"
    assert drawn.read_text("utf-8") == diagram(con), "run: wit sql --diagram docs/catalogue.svg"


def test_queries_count_what_came_to_the_cap(con: duckdb.DuckDBPyConnection) -> None:
    wrong = con.execute(
        "SELECT count(*) FROM queries WHERE NOT (kept <= reached AND reached <= matched)"
    ).fetchall()
    assert wrong == [(0,)]
    before = con.execute("SELECT sum(reached) FROM queries").fetchall()
    counted = con.execute(
        "SELECT count(*) FROM matches JOIN pairs USING (row)"
        " WHERE stage IS NULL OR stage NOT IN ('30_filter', '40_dedupe')"
    ).fetchall()
    assert before == counted


def test_the_numbers_agree(con: duckdb.DuckDBPyConnection, corpus: Path) -> None:
    def one(query: str) -> int:
        value: int = con.execute(query).fetchall()[0][0]
        return value

    kept = one("SELECT count(*) FROM pairs WHERE verdict = 'kept'")
    total = one("SELECT count(*) FROM pairs")
    assert one("SELECT sum(samples) FROM shards") == kept
    assert one("SELECT sum(pairs) FROM image_sizes") == kept
    assert one("SELECT sum(rows) FROM reasons") == total - kept
    assert one("SELECT count(DISTINCT reason) FROM reasons") == len(REASONS)
    assert one("SELECT sum(matched) FROM queries") == one("SELECT count(*) FROM matches")
    assert one("SELECT max(rows_in) FROM stages WHERE stage = '90_pairs'") == total
    assert one("SELECT count(*) FROM duplicates") == one(
        "SELECT count(*) FROM pairs WHERE duplicate_of IS NOT NULL"
    )
    tars = {path.name for path in (corpus / "shards").glob("*.tar")}
    assert {row[0] for row in con.execute("SELECT shard FROM shards").fetchall()} == tars


def test_the_digest_is_that_of_the_manifest(con: duckdb.DuckDBPyConnection, corpus: Path) -> None:
    assert digest(con) == manifest.read(corpus).catalogue


def test_the_digest_sees_one_value_and_not_the_order(corpus: Path, tmp_path: Path) -> None:
    path = shutil.copy(corpus / "corpus.duckdb", tmp_path / "changed.duckdb")
    with duckdb.connect(path) as con:
        before = digest(con)
        con.execute("CREATE TABLE other AS FROM words ORDER BY word DESC")
        con.execute("DROP TABLE words")
        con.execute("ALTER TABLE other RENAME TO words")
        assert digest(con) == before
        con.execute("UPDATE words SET kept = kept + 1 WHERE word = 'a'")
        after = digest(con)
        assert [name for name in TABLES if after[name] != before[name]] == ["words"]
        con.execute("DROP TABLE words")
        assert set(before) - set(digest(con)) == {"words"}


def test_a_missing_or_broken_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such catalogue: run `wit shards"):
        open_catalogue(tmp_path)
    (tmp_path / "corpus.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(CorpusError, match=r"corpus\.duckdb: .*delete it"):
        open_catalogue(tmp_path)


def test_duplicates_say_who_was_kept_and_why(con: duckdb.DuckDBPyConnection) -> None:
    rules = dict(con.execute("SELECT DISTINCT reason, rule FROM duplicates").fetchall())
    assert rules == {
        "duplicate_pair": "the lower rank",
        "duplicate_url": "the lower rank",
        "duplicate_image": "the larger image",
        "near_duplicate_image": "the larger image",
    }
    ranks = con.execute(
        "SELECT kept.rank, dropped.rank FROM duplicates AS gone"
        " JOIN pairs AS kept ON kept.uid = gone.duplicate_of"
        " JOIN pairs AS dropped ON dropped.row = gone.row"
        " WHERE gone.rule = 'the lower rank' AND gone.uid != gone.duplicate_of"
    ).fetchall()
    assert ranks
    assert all(kept < dropped for kept, dropped in ranks)
