"""The engines of the match against naive searches, over text of many scripts."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import ngrams
from pipeline.ngrams import QueryTable
from pipeline.queries import MAX_WORDS
from pipeline.unspaced import UnspacedFinder, cut
from wit.errors import MissingExtra
from wit.text import words

# Words that begin, end or contain one another, in several scripts, short and longer than 8 bytes.
WORDS = st.sampled_from(
    "dog hot hotdog Red dog's a aa aaa photographer photographers é ÉCOLE straße собака СОБАКА"  # noqa: SIM905
    " σκύλος كلب הכלב कुत्ता 개 犬 子犬 犬小屋 สุนัข สุนัขสีดำ ﬁne 1 12 １２ ½ ǆ İstanbul".split()
) | st.text(st.characters(categories=["L", "M", "N"]), min_size=1, max_size=3)
CAPTIONS = st.lists(
    st.lists(WORDS | st.just("!"), max_size=12).map(" ".join).map(lambda t: " ".join(words(t))),
    max_size=8,
)
QUERIES = st.lists(
    st.lists(WORDS, min_size=1, max_size=5)
    .map(lambda chosen: words(" ".join(chosen)))
    .filter(lambda chosen: 0 < len(chosen) <= MAX_WORDS)
    .map(" ".join),
    max_size=12,
    unique=True,
)

DENSE = st.lists(st.text("ab é犬ーกำ", max_size=8), max_size=5)


def naive(caption: str, queries: list[str]) -> list[int]:
    """The numbers of the queries that stand in a caption between spaces; both are normalised."""
    return [n for n, query in enumerate(queries) if f" {query} " in f" {caption} "]


def strings(values: list[str]) -> pa.StringArray:
    return pa.array(values, pa.string())


@settings(deadline=None)
@given(CAPTIONS, QUERIES)
def test_it_finds_what_a_naive_search_finds(captions: list[str], queries: list[str]) -> None:
    found = QueryTable(strings(queries)).find(strings(captions)).to_pylist()
    assert found == [naive(caption, queries) for caption in captions]


@settings(deadline=None, max_examples=30)
@given(CAPTIONS, QUERIES, st.integers(0, 8), st.integers(0, 8))
def test_a_slice_of_a_column_is_as_good_as_a_column(
    captions: list[str], queries: list[str], first: int, size: int
) -> None:
    table = QueryTable(strings(queries))
    part = strings(captions).slice(min(first, len(captions)), size)
    assert table.find(part).to_pylist() == table.find(strings(part.to_pylist())).to_pylist()


def test_columns_longer_than_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    names = [f"w{n}" * (1 + n % 4) for n in range(300)]
    captions = [" ".join(rng.choice(names, size)) for size in rng.integers(0, 30, 400)]
    queries = sorted({" ".join(rng.choice(names, size)) for size in rng.integers(1, 3, 2000)})
    expected = [naive(caption, queries) for caption in captions]
    monkeypatch.setattr(ngrams, "_BATCH", 100)  # some captions are longer than this
    assert QueryTable(strings(queries)).find(strings(captions)).to_pylist() == expected
    assert sum(map(len, expected)) > 1000


def test_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams, "_MIX", 0)  # every run of words now has the same hash
    queries = ["dog", "cat", "photographer", "photographed", "hot dog", "hot dog stand"]
    captions = ["a hot dog stand", "photographers", "photographed cat", "dog hot"]
    found = QueryTable(strings(queries)).find(strings(captions)).to_pylist()
    assert found == [naive(caption, queries) for caption in captions]


def test_nothing_among_nothing() -> None:
    assert QueryTable(strings([])).find(strings([])).to_pylist() == []
    assert QueryTable(strings([])).find(strings(["a dog", ""])).to_pylist() == [[], []]
    nulls = pa.array([None, "dog", None], pa.string())
    assert QueryTable(strings(["dog"])).find(nulls).to_pylist() == [[], [0], []]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CAPTIONS, QUERIES)
def test_the_plain_join_finds_what_a_naive_search_finds(
    sql_on: Any, captions: list[str], queries: list[str]
) -> None:
    tables = {
        "clean": {
            "row": pa.array(range(len(captions)), pa.int64()),
            "words": pa.array(captions, pa.string()),
        },
        "queries": {
            "query_id": pa.array(range(len(queries)), pa.int32()),
            "words": pa.array(queries, pa.string()),
        },
    }
    found = sql_on("20_match_plain.sql", tables, max_words=MAX_WORDS)
    assert found == [(row, q) for row, text in enumerate(captions) for q in naive(text, queries)]


def search_unspaced(queries: list[str], captions: list[str]) -> list[list[int]]:
    listed = strings(queries)
    found: list[list[int]] = (
        UnspacedFinder(listed, QueryTable(listed).find).find(strings(captions)).to_pylist()
    )
    return found


def everywhere(caption: str, queries: list[str]) -> list[int]:
    """The queries that stand in a caption at any place where a match may begin and end."""
    return [
        n
        for n, query in enumerate(queries)
        if any(
            caption.startswith(query, at) and cut(caption, at) and cut(caption, at + len(query))
            for at in range(len(caption) - len(query) + 1)
        )
    ]


@settings(deadline=None)
@given(CAPTIONS, QUERIES)
def test_unspaced_text_is_searched_everywhere(captions: list[str], queries: list[str]) -> None:
    found = search_unspaced(queries, captions)
    assert found == [everywhere(caption, queries) for caption in captions]
    for caption, numbers in zip(captions, found, strict=True):
        assert set(naive(caption, queries)) <= set(numbers)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.text("ab é犬ーกำ", max_size=8), max_size=4),
    st.lists(st.text("aé犬ーกำ"), max_size=6),
)
def test_dense_unspaced_text(raw: list[str], wanted: list[str]) -> None:
    captions = [" ".join(words(text)) for text in raw]
    queries = sorted({" ".join(words(text)) for text in wanted} - {""})
    assert search_unspaced(queries, captions) == [
        everywhere(caption, queries) for caption in captions
    ]


@pytest.mark.parametrize(
    ("caption", "query", "holds"),
    [
        ("小さな子犬の写真", "子犬", True),
        ("小さな子犬の写真", "犬", True),
        ("東京タワーの夜", "タワー", True),
        ("東京タワーの夜", "タワ", False),  # the long vowel belongs to the letter before it
        ("สุนัขสีดำ", "สุนัข", True),
        ("สุนัขสีดำ", "ส", False),  # would tear a vowel sign off its consonant
        ("犬のhotdog", "hotdog", True),
        ("犬のhotdog", "dog", False),
        ("犬 hotdog", "dog", False),
        ("한국어", "한국", False),  # Korean writes with spaces
        ("ice cream 犬", "ice cream", True),
        ("nice cream 犬", "ice cream", False),
    ],
)
def test_where_a_match_may_end(caption: str, query: str, holds: bool) -> None:
    caption, query = (" ".join(words(text)) for text in (caption, query))
    assert search_unspaced([query], [caption]) == [[0] if holds else []]


def test_the_package_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ahocorasick_rs", None)
    with pytest.raises(MissingExtra, match=r"pip install -e '.\[matcher\]'"):
        search_unspaced(["犬"], ["子犬"])
