"""40_dedupe and 50_balance against definitions a reader can check by eye."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wit.text import rank, uid

LIMITED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
RANKS = st.integers(0, 2**64 - 1) | st.integers(0, 3) | st.integers(2**64 - 3, 2**64 - 1)
# (rank, queries) of each row
PAIRS = st.lists(st.tuples(RANKS, st.sets(st.integers(0, 4), max_size=3)), max_size=60)


def balanced(sql: Any, pairs: list[tuple[int, set[int]]], cap: int) -> set[int]:
    rows = [(i, q) for i, (_, queries) in enumerate(pairs) for q in sorted(queries)]
    number = pa.array(range(len(pairs)), pa.int64())
    tables = {
        "ingest": {"row": number, "rank": pa.array([r for r, _ in pairs], pa.uint64())},
        "dedupe": {"row": number, "reason": pa.array([None] * len(pairs), pa.string())},
        "match": {
            "row": pa.array([row for row, _ in rows], pa.int64()),
            "query_id": pa.array([query for _, query in rows], pa.int32()),
        },
    }
    found = sql("50_balance.sql", tables, cap=cap)
    assert [row for row, _ in found] == list(range(len(pairs)))
    assert {reason for _, reason in found} <= {None, "over_cap"}
    return {row for row, reason in found if reason is None}


def naive(pairs: list[tuple[int, set[int]]], cap: int) -> set[int]:
    """A pair stays if one of its queries has fewer than `cap` pairs of lower (rank, row)."""
    kept: set[int] = set()
    for query in range(5):
        of_query = sorted((rank_, row) for row, (rank_, qs) in enumerate(pairs) if query in qs)
        kept |= {row for _, row in of_query[:cap]}
    return kept


@LIMITED
@given(PAIRS, st.integers(1, 12))
def test_the_cap_is_the_plain_definition(
    sql_on: Any, pairs: list[tuple[int, set[int]]], cap: int
) -> None:
    assert balanced(sql_on, pairs, cap) == naive(pairs, cap)


@LIMITED
@given(PAIRS, st.integers(1, 8), st.integers(0, 8), st.randoms(use_true_random=False))
def test_the_cap_is_nested_and_free_of_order(
    sql_on: Any, pairs: list[tuple[int, set[int]]], cap: int, more: int, random: Any
) -> None:
    unique = list({rank_: (rank_, queries) for rank_, queries in pairs}.values())
    small = balanced(sql_on, unique, cap)
    assert small <= balanced(sql_on, unique, cap + more)
    order = random.sample(range(len(unique)), len(unique))
    shuffled = balanced(sql_on, [unique[i] for i in order], cap)
    assert {order[i] for i in shuffled} == small


@pytest.mark.parametrize("spread", [1, 2**32, 2**64 // 4000])
def test_a_head_query_is_cut_exactly(sql_on: Any, spread: int) -> None:
    """Also when ranks are crowded at the low end, so that the quantile's bound fails."""
    pairs = [(2**64 - 1 - i * spread, {0}) for i in range(4000)]
    assert balanced(sql_on, pairs, 100) == set(range(3900, 4000))


CAPTIONS = st.tuples(st.integers(0, 3), st.integers(0, 3), RANKS)


@LIMITED
@given(st.lists(CAPTIONS, max_size=30), st.integers(0, 3))
def test_dedupe_is_the_plain_definition(
    sql_on: Any, rows: list[tuple[int, int, int]], per_image: int
) -> None:
    number = pa.array(range(len(rows)), pa.int64())
    tables = {
        "filter": {"row": number, "reason": pa.array([None] * len(rows), pa.string())},
        "ingest": {"row": number, "rank": pa.array([r for _, _, r in rows], pa.uint64())},
        "urls": {"row": number, "url_key": pa.array([u for u, _, _ in rows], pa.uint64())},
        "clean": {"row": number, "text": pa.array([str(t) for _, t, _ in rows], pa.string())},
    }
    found = sql_on("40_dedupe.sql", tables, captions_per_image=per_image)
    order = sorted(range(len(rows)), key=lambda i: (rows[i][2], i))
    kept: dict[int, list[int]] = {}  # URL -> rows that stay
    first: dict[tuple[int, int], int] = {}  # pair -> its first row
    reasons: dict[int, str | None] = {}
    for i in order:
        url, text, _ = rows[i]
        of_url = kept.setdefault(url, [])
        if (url, text) in first:
            reasons[i] = "duplicate_pair"
        elif per_image and len(of_url) >= per_image:
            reasons[i] = "duplicate_url"
        else:
            reasons[i] = None
            of_url.append(i)
        first.setdefault((url, text), i)
    assert {row: reason for row, reason, _ in found} == reasons
    for row, reason, kept_row in found:
        if reason is None:
            assert kept_row is None
        else:
            assert reasons[kept_row] is None
            assert rows[kept_row][0] == rows[row][0]


def test_the_lowest_rank_stays_of_equal_pairs(run_until: Any) -> None:
    spellings = [f"http://h.example/x.jpg#{i}" for i in range(5)]
    tables = run_until("40_dedupe", [(url, "a dog") for url in spellings], queries=["dog"])
    best = min(range(5), key=lambda i: rank(uid(spellings[i], "a dog")))
    expected = {i: None if i == best else "duplicate_pair" for i in range(5)}
    assert tables.reasons("40_dedupe") == expected
