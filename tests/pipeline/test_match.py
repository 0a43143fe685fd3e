"""The query list and the word-bounded match, against a plain search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wit.errors import InputError


def matches(tables: Any) -> list[tuple[int, str]]:
    names = {row["query_id"]: row["query"] for row in tables("18_queries")}
    return [(row["row"], names[row["query_id"]]) for row in tables("20_match")]


@pytest.mark.parametrize("engine", ["ngrams", "sql", "aho_corasick"])
def test_every_engine_gives_the_same_table(run_until: Any, tmp_path: Path, engine: str) -> None:
    queries = ["dog", "hot dog", "the quick brown fox", "straße", "犬", "quick brown"]
    captions = [
        "The quick brown fox, a HOT-dog",
        "STRASSE dog dog",
        "hotdog",
        "",
        "犬 dog",
        "quick",
    ]
    rows = [("http://h.example", text) for text in captions]
    tables = run_until("20_match", rows, queries=queries, match={"engine": engine})
    assert matches(tables) == [
        (0, "dog"),
        (0, "hot dog"),
        (0, "the quick brown fox"),
        (0, "quick brown"),
        (1, "dog"),
        (1, "straße"),
        (4, "dog"),
        (4, "犬"),
    ]


def test_the_engines_of_one_meaning_share_a_fingerprint(run_until: Any, tmp_path: Path) -> None:
    rows, queries = [("http://h.example", "子犬 and a dog")], ["犬", "dog"]
    standing = run_until("20_match", rows, queries=queries)
    first = matches(standing)
    assert "20_match" not in run_until("20_match", match={"engine": "sql"}, queries=queries).built()
    other = run_until("20_match", match={"engine": "sql"}, queries=queries, corpus=tmp_path / "b")
    folders = [tables.runner.results["20_match"].folder for tables in (standing, other)]
    one, same = (sorted(folder.glob("*.parquet")) for folder in folders)
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in same] != []
    again = run_until("20_match", match={"engine": "aho_corasick"}, queries=queries)
    assert again.built() == ["20_match"]
    assert (first, matches(again)) == ([(0, "dog")], [(0, "犬"), (0, "dog")])


def test_words_bound_a_match(run_until: Any) -> None:
    captions = ['a "hot dog"', "a hotdog", "the (dog)", "dog's hot dog", "hot, dog", "a Hot   DOG"]
    rows = [("http://h.example", text) for text in captions]
    tables = run_until("20_match", rows, queries=["dog", "hot dog"])
    assert matches(tables) == [
        (0, "dog"),
        (0, "hot dog"),
        (2, "dog"),
        (3, "dog"),
        (3, "hot dog"),
        (4, "dog"),
        (4, "hot dog"),
        (5, "dog"),
        (5, "hot dog"),
    ]


def test_a_given_list_counts_what_it_leaves_out(run_until: Any) -> None:
    queries = [
        "Dog",
        "",
        "dog!",
        "!!",
        "1 2 3 4 5 6 7 8 9",
        "hot dog",
        "DOG'S",
    ]
    tables = run_until("18_queries", [("http://h.example", "a dog")], queries=queries)
    assert [(row["query"], row["words"], row["rank"]) for row in tables("18_queries")] == [
        ("Dog", "dog", 0),
        ("hot dog", "hot dog", 4),
    ]
    counts = tables.runner.results["18_queries"].counts
    assert (counts.rows_in, counts.rows_out) == (6, 2)
    assert counts.reasons == {"no_word": 1, "repeated": 2, "too_many_words": 1}


def test_a_list_as_parquet_keeps_source_and_count(run_until: Any, tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    columns = {
        "query": ["dog", "cat"],
        "source": ["wordnet", None],
        "count": [7, None],
        "score": [1.5, None],
    }
    pq.write_table(pa.table(columns), path)
    rows = run_until("18_queries", [("http://h.example", "a dog")], path)("18_queries")
    assert [(row["query"], row["source"], row["count"], row["score"]) for row in rows] == [
        ("dog", "wordnet", 7, 1.5),
        ("cat", "given", None, None),
    ]


def test_a_list_from_the_corpus(run_until: Any) -> None:
    captions = [f"the black dog number {i}" for i in range(4)]
    captions += [f"the hot dog {i}" for i in range(4)] + ["the hot dog 3"] * 9
    captions += [f"zebra {i}" for i in range(100, 108)]
    rows = [("http://h.example", caption) for caption in captions]
    tables = run_until("18_queries", rows, match={"min_count": 4, "min_pmi": 0.5})
    assert [(row["query"], row["count"], row["source"]) for row in tables("18_queries")] == [
        ("dog", 8, "corpus"),  # distinct captions, so the repeated one counts once
        ("the", 8, "corpus"),
        ("zebra", 8, "corpus"),
        ("black", 4, "corpus"),
        ("black dog", 4, "corpus"),  # log2(4 * 16 / (4 * 8)) = 1 bit
        ("dog number", 4, "corpus"),
        ("hot", 4, "corpus"),
        ("hot dog", 4, "corpus"),
        ("number", 4, "corpus"),
        ("the black", 4, "corpus"),
        ("the hot", 4, "corpus"),
    ]
    limits = {"min_count": 4, "min_pmi": 1.5, "max_queries": 5}
    strict = run_until("18_queries", rows, match=limits)
    assert [row["query"] for row in strict("18_queries")] == ["dog", "the", "zebra", "black", "hot"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("q.txt", b"caf\xe9\n", "not UTF-8"),
        ("q.txt", b"!!\n\n", "no query in it"),
        ("q.csv", b"dog\n", "is .txt .* or .parquet"),
        ("q.parquet", b"PAR1", "not readable as Parquet"),
        ("q.txt", None, "No such file"),
    ],
)
def test_bad_lists_are_named(
    run_until: Any, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        run_until("18_queries", [("http://h.example", "a dog")], path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("counts", [["many"], [1.5]])
def test_a_list_with_counts_that_are_none(run_until: Any, tmp_path: Path, counts: Any) -> None:
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"query": ["dog"], "count": counts}), path)
    with pytest.raises(InputError, match="column count is not int64: ") as caught:
        run_until("18_queries", [("http://h.example", "a dog")], path)
    assert "\n" not in str(caught.value)


def test_a_list_without_the_column(run_until: Any, tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"words": ["dog"]}), path)
    with pytest.raises(InputError, match="no text column query among words"):
        run_until("18_queries", [("http://h.example", "a dog")], path)
