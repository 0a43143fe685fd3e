"""The query list and the word-bounded match, against a plain search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wit.errors import InputError
from wit.text import words

VOCABULARY = st.sampled_from(["dog", "hot", "hotdog", "Red", "dog's", '"dog"', "(dog)", "é", "x-y"])
PHRASES = st.lists(VOCABULARY, min_size=1, max_size=4).map(" ".join)


def matches(tables: Any) -> list[tuple[int, str]]:
    names = {row["query_id"]: row["query"] for row in tables("18_queries")}
    return [(row["row"], names[row["query_id"]]) for row in tables("20_match")]


def plain_search(captions: list[str], queries: list[str]) -> set[tuple[int, str]]:
    return {
        (row, query)
        for row, caption in enumerate(captions)
        for query in queries
        if f" {' '.join(words(query))} " in f" {' '.join(words(caption))} "
    }


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PHRASES | st.just("! !"), max_size=6), st.sets(PHRASES, max_size=9))
def test_the_join_finds_what_a_plain_search_finds(
    sql_on: Any, captions: list[str], phrases: set[str]
) -> None:
    queries = sorted({" ".join(w) for phrase in phrases if len(w := words(phrase)) <= 4})
    tables = {
        "clean": {
            "row": pa.array(range(len(captions)), pa.int64()),
            "words": pa.array([" ".join(words(caption)) for caption in captions], pa.string()),
        },
        "queries": {
            "query_id": pa.array(range(len(queries)), pa.int32()),
            "words": pa.array(queries, pa.string()),
        },
    }
    found = [(row, queries[i]) for row, i in sql_on("20_match.sql", tables)]
    assert found == sorted(found, key=lambda pair: (pair[0], queries.index(pair[1])))
    assert len(found) == len(set(found))
    assert set(found) == plain_search(captions, queries)


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
    queries = ["Dog", "", "dog!", "!!", "one two three four five", "hot dog", "DOG'S"]
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
    columns = {"query": ["dog", "cat"], "source": ["wordnet", None], "count": [7, None]}
    pq.write_table(pa.table(columns), path)
    rows = run_until("18_queries", [("http://h.example", "a dog")], path)("18_queries")
    assert [(row["query"], row["source"], row["count"]) for row in rows] == [
        ("dog", "wordnet", 7),
        ("cat", "given", None),
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
