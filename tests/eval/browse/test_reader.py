"""Words, filters and free SQL over a corpus."""

import json
import math
import shutil
import tracemalloc
from collections import Counter

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.browse import search
from eval.browse.postings import postings, state_of
from eval.browse.reader import ANSWER, Reader
from pipeline.config import EngineConfig
from wit.errors import InputError
from wit.text import words

KEPT = [{"column": "verdict", "op": "is", "value": "kept"}]


@pytest.mark.parametrize(
    "text", ["red circle", "square", "a star.", "Shapes", "zzz", "the-red", ""]
)
def test_words_find_what_a_look_at_every_caption_finds(reader, rows, text):
    wanted = set(words(text))
    expected = {row["row"] for row in rows if wanted <= set(words(row["text"] or ""))}
    found, total = reader.find(text, [], [], 10_000, 0)
    assert total == len(expected)
    assert set(found) == expected
    assert reader.find(text, [], [], 5, 3)[0] == found[3:8]


def test_the_best_captions_by_bm25_come_first(reader, rows):
    listed = {row["row"]: words(row["text"] or "") for row in rows}
    bags = {row: Counter(found) for row, found in listed.items()}
    postings_of = sum(len(bag) for bag in bags.values())
    mean = sum(len(listed[row]) for row, bag in bags.items() for _ in bag) / postings_of

    def score(row, terms):
        total = 0.0
        for term in terms:
            holders = sum(term in bag for bag in bags.values())
            rarity = math.log(1 + (len(rows) - holders + 0.5) / (holders + 0.5))
            length = search.K1 * (1 - search.B + search.B * len(listed[row]) / mean)
            times = bags[row][term]
            total += rarity * times * (search.K1 + 1) / (times + length)
        return total

    found, _ = reader.find("red circle", [], [], 200, 0)
    scores = [score(row, ["red", "circle"]) for row in found]
    assert len(found) > 5
    assert scores == pytest.approx(sorted(scores, reverse=True))
    assert scores[0] > scores[-1]


def test_prefixes_phrases_and_scripts_without_spaces(page):
    def captions(text):
        return [card["text"] for card in page.search({"text": text, "filters": KEPT})["pairs"]]

    assert len(captions("umbrella")) == 2
    assert len(captions("umbrel*")) == 3
    assert captions('"umbrella in a picture"')[0].startswith("a planted umbrella")
    assert captions('"picture umbrella"') == []
    assert captions("\u4f1e") == ["picture \u96e8\u4f1e umbrella"]
    assert captions("UMBRELLA planted") == ["a planted umbrella in a picture by the sea, a picture"]


@given(st.text(max_size=60))
def test_any_text_can_be_searched_for(text):
    try:
        found = search.terms(text)
    except InputError:
        return
    assert all(low <= high for low, high in found.ranges)
    query = search.filters(
        [{"column": "text", "op": "contains", "value": text}], {"text": "VARCHAR"}
    )
    best, count = search.ranked(found, query)
    marked = {low for low, _ in found.ranges} | set(found.pieces) | {text}
    assert not any(len(word) > 9 and word in best + count for word in marked)  # only parameters


@pytest.mark.parametrize(
    ("column", "op", "value", "holds"),
    [
        ("reason", "is", "language", lambda row: row["reason"] == "language"),
        ("verdict", "is not", "kept", lambda row: row["verdict"] != "kept"),
        ("domain", "contains", "SCHOOL", lambda row: "school" in (row["domain"] or "")),
        ("width", "at least", "90", lambda row: (row["width"] or 0) >= 90),
        ("row", "at most", "77", lambda row: row["row"] <= 77),
        ("phash", "is empty", "", lambda row: row["phash"] is None),
        ("duplicate_of", "is not empty", "", lambda row: row["duplicate_of"] is not None),
    ],
)  # fmt: skip
def test_filters(reader, rows, column, op, value, holds):
    asked = [{"column": column, "op": op, "value": value}]
    found, total = reader.find("", asked, ["row"], 10_000, 0)
    assert found == [row["row"] for row in rows if holds(row)]
    assert 0 < total == len(found) < len(rows)


def test_filters_by_query_and_order(reader, rows, looked_at):
    with duckdb.connect(str(looked_at / "corpus.duckdb"), read_only=True) as con:
        query, words = con.execute("""SELECT query, words FROM queries
            ORDER BY matched DESC, query LIMIT 1""").fetchall()[0]
        expected = con.execute("""SELECT row FROM matches JOIN queries USING (query_id)
            WHERE query = ? ORDER BY row""", [query]).fetchall()  # fmt: skip
    asked = [{"column": "query", "op": "is", "value": query}]
    assert reader.find("", asked, ["row"], 10_000, 0)[0] == [row for (row,) in expected] != []
    worded, total = reader.find(words, asked, [], 10_000, 0)  # now more tables have rows
    assert (set(worded), total) == ({row for (row,) in expected}, len(expected))
    overlaps = [{"column": "eval_overlap", "op": "is", "value": "a set"}]
    assert reader.find(words, overlaps, [], 10, 0) == ([], 0)
    widths = [rows[row]["width"] for row in reader.find("", KEPT, ["-width"], 50, 0)[0]]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([{"column": "nobody", "op": "is", "value": "x"}], "there is no filter nobody"),
        ([{"column": "text; DROP TABLE pairs", "op": "is", "value": "x"}], "there is no filter"),
        ([{"column": "row", "op": "is", "value": "x"}], "whole number"),
        ([{"column": "row", "op": "like", "value": "1"}], "there is no filter row like"),
        ([{"column": "phash", "op": "is", "value": "9" * 60}], "phash|range|Conversion"),
        ("all of it", "a list"),
        ([3], "a column, an op and a value"),
        (KEPT * 20, "at most"),
    ],
)
def test_filters_that_are_none(reader, asked, words):
    with pytest.raises(InputError, match=words):
        reader.find("", asked, [], 10, 0)


def test_sql_reads_and_does_nothing_else(reader, looked_at, tmp_path):
    answer = reader.sql("SELECT count(*) AS n, repeat('x', 9000) AS long FROM pairs", 10)
    assert answer["columns"] == ["n", "long"]
    assert answer["rows"][0][0] == reader.counts["rows"]
    assert len(answer["rows"][0][1]) == 2001
    assert reader.sql("SELECT * FROM range(100)", 7)["more"]
    assert len(reader.sql("DESCRIBE pairs", 100)["rows"]) == len(reader.columns)
    big = reader.sql("SELECT rank, [1, 2], {'a': 1.5}, 'nan'::DOUBLE FROM pairs LIMIT 1", 1)
    assert json.dumps(big)  # every value is one of JSON's
    catalogue = looked_at / "corpus.duckdb"
    before, written = catalogue.read_bytes(), tmp_path / "out"
    names, plain = sorted(looked_at.iterdir()), "FORMAT csv, USE_TMP_FILE false"
    for query in (
        f"COPY (SELECT 42) TO '{catalogue}.wal' ({plain})",
        f"EXPLAIN ANALYZE COPY (SELECT 42) TO '{catalogue}.wal' ({plain})",
        f"COPY (SELECT 42) TO '{catalogue}' ({plain})",
        f"EXPLAIN ANALYZE COPY (SELECT 42) TO '{catalogue}' ({plain})",
        "EXPLAIN ANALYZE CREATE TEMP TABLE x AS SELECT 1",
        "EXPLAIN ANALYZE DROP TABLE pairs",
        "EXPLAIN SELECT 1",
        "DROP TABLE pairs",
        "DELETE FROM pairs",
        "UPDATE pairs SET text = ''",
        "CREATE TABLE x AS SELECT 1",
        "CREATE TEMP TABLE x AS SELECT 1",
        f"COPY pairs TO '{written}'",
        f"ATTACH '{written}'",
        f"EXPORT DATABASE '{written}'",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA enable_profiling",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT 1; SELECT 2",
        "",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        f"SELECT * FROM read_parquet('{looked_at}/pairs/*.parquet')",
        "FROM sniff_csv('/etc/passwd')",
        "SELECT nothing FROM pairs",
        "SELEC 1",
    ):
        with pytest.raises(InputError) as caught:
            reader.sql(query, 10)
        assert "\n" not in str(caught.value)
    assert not written.exists()
    assert sorted(looked_at.iterdir()) == names
    assert catalogue.read_bytes() == before


def test_an_answer_has_a_size_and_is_cut_row_by_row(reader):
    tracemalloc.start()
    answer = reader.sql("SELECT repeat('x', 1000000), range(50000) FROM range(60)", 100)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 12_000_000  # two rows; of all of them, 60 MB of text alone
    assert (len(answer["rows"]), answer["more"]) == (60, False)
    assert {len(cell) for row in answer["rows"] for cell in row} == {2001}
    answer = reader.sql("SELECT repeat('x', 2000) FROM range(9000)", 9000)
    assert (len(answer["rows"]), answer["more"]) == (math.ceil(ANSWER / 2000), True)


def test_sql_that_takes_too_long_or_too_much_is_stopped(looked_at):
    index = postings(looked_at, state_of(looked_at), EngineConfig(threads=1))
    quick = Reader(looked_at, index, "100MB", 600.0)
    try:
        quick.seconds = 0.2
        with pytest.raises(InputError, match=r"stopped after 0\.2 seconds"):
            quick.sql("SELECT sum(a.range) FROM range(1000000) a, range(1000000) b", 1)
        quick.seconds = 600.0
        with pytest.raises(InputError, match=r"(?i)memory"):
            quick.sql("SELECT list(range) FROM range(100000000)", 1)
        assert quick.sql("SELECT 1", 1)["rows"] == [[1]]
    finally:
        quick.close()


def test_postings_are_made_once_for_each_corpus(looked_at, reader, tmp_path):
    copy = tmp_path / "corpus"
    shutil.copytree(looked_at, copy)
    state = state_of(copy)
    (first,) = copy.glob("browse/words-*.duckdb")
    made = first.stat().st_mtime_ns
    (copy / "browse" / "words-old-1.1.duckdb").write_bytes(b"of an older corpus")
    first.with_suffix(".tmp").write_bytes(b"of a run that was killed")
    assert postings(copy, state, EngineConfig(threads=1)) == first
    assert first.stat().st_mtime_ns == made
    assert [path.name for path in (copy / "browse").iterdir()] == [first.name]
    other = postings(copy, "another", EngineConfig(threads=1))
    assert list((copy / "browse").iterdir()) == [other]
