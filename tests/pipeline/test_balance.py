"""The cap per query against definitions a reader can check by eye."""

from __future__ import annotations

import hashlib
from collections import Counter
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


def tables_of(pairs: list[tuple[int, set[int]]]) -> dict[str, dict[str, Any]]:
    rows = [(i, q) for i, (_, queries) in enumerate(pairs) for q in sorted(queries)]
    return {
        "standing": {
            "row": pa.array(range(len(pairs)), pa.int64()),
            "rank": pa.array([r for r, _ in pairs], pa.uint64()),
            "reason": pa.array([None] * len(pairs), pa.string()),
        },
        "match": {
            "row": pa.array([row for row, _ in rows], pa.int64()),
            "query_id": pa.array([query for _, query in rows], pa.int32()),
        },
        "queries": {
            "query_id": pa.array(range(5), pa.int32()),
            "words": [f"query {i}" for i in range(5)],
        },
    }


def balanced(sql: Any, pairs: list[tuple[int, set[int]]], cap: int, parts: int = 1) -> set[int]:
    """The rows that queries bring in; the work is cut into parts by query."""
    tables = tables_of(pairs)
    del tables["queries"]
    found = [sql("48_bottom_k.sql", tables, cap=cap, part=i, parts=parts) for i in range(parts)]
    for rows in found:
        assert [row for (row,) in rows] == sorted({row for (row,) in rows})
    return {row for rows in found for (row,) in rows}


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
    assert balanced(sql_on, pairs, cap, parts=3) == naive(pairs, cap)


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


@LIMITED
@given(PAIRS, PAIRS, st.integers(1, 8))
def test_new_pairs_are_merged_into_what_was_brought_in(
    sql_on: Any, old: list[tuple[int, set[int]]], new: list[tuple[int, set[int]]], cap: int
) -> None:
    """What fell over the cap stays over it when input is added, so only what was kept and what is
    new has to be looked at; and queries that nothing new holds bring in the same."""
    before = balanced(sql_on, old, cap)
    after = balanced(sql_on, old + new, cap)
    assert {row for row in after if row < len(old)} <= before
    slim = [
        (rank_, queries if row in before else set()) for row, (rank_, queries) in enumerate(old)
    ]
    assert balanced(sql_on, slim + new, cap) == after
    touched = set().union(*(queries for _, queries in new), set())
    for row, (_, queries) in enumerate(old):
        if not queries & touched:
            assert (row in before) == (row in after)


def drawn(rank_: int, query: int, cap: int, count: int) -> bool:
    """The draw as its comment says it: a hash to 32 bits against cap / count."""
    key = int.from_bytes(hashlib.md5(f"query {query}".encode()).digest()[8:], "little")
    low, high = (1 << 32) - 1, 32
    a = rank_ ^ key
    b = (a & low) * 2654435761 ^ a >> high
    c = ((b ^ b >> high) & low) * 2246822519
    return (c ^ c >> high) & low < cap / count * 2**32


@LIMITED
@given(PAIRS, st.integers(1, 6))
def test_independent_draws_are_the_plain_definition(
    sql_on: Any, pairs: list[tuple[int, set[int]]], cap: int
) -> None:
    found = sql_on("48_independent.sql", tables_of(pairs), cap=cap, part=0, parts=1)
    counts = Counter(query for _, queries in pairs for query in queries)
    expected = {
        row
        for row, (rank_, queries) in enumerate(pairs)
        if any(counts[q] <= cap or drawn(rank_, q, cap, counts[q]) for q in queries)
    }
    assert [row for (row,) in found] == sorted(expected)


def test_independent_draws_are_fair_and_independent(sql_on: Any) -> None:
    """Of 20,000 pairs that two queries share, each brings in a tenth, and both a hundredth."""
    ranks = [rank(uid(str(i), "")) for i in range(20_000)]
    kept = {}
    for queries in ({0}, {1}, {0, 1}):
        tables = tables_of([(rank_, queries) for rank_ in ranks])
        found = sql_on("48_independent.sql", tables, cap=2000, part=0, parts=1)
        kept[len(queries), min(queries)] = {row for (row,) in found}
    one, other, either = kept[1, 0], kept[1, 1], kept[2, 0]
    assert either == one | other
    assert all(abs(len(rows) - 2000) < 4 * 42 for rows in (one, other))  # 4 standard deviations
    assert abs(len(one & other) - 200) < 4 * 14


@pytest.mark.parametrize("spread", [1, 2**32, 2**64 // 4000])
def test_a_head_query_is_cut_exactly(sql_on: Any, spread: int) -> None:
    """Also when ranks are crowded at the low end, so that the quantile's bound fails."""
    pairs = [(2**64 - 1 - i * spread, {0}) for i in range(4000)]
    assert balanced(sql_on, pairs, 100) == set(range(3900, 4000))


def test_a_cap_is_raised_before_the_download_and_exact_after_it(run_until: Any) -> None:
    rows = [(f"http://h.example/{i}", f"dog number {i}") for i in range(40)]
    tables = run_until("50_balance", rows, queries=["dog"], balance={"cap": 6, "survival": 0.5})
    kept = [row for row, reason in tables.reasons("50_balance").items() if reason is None]
    assert kept == sorted(sorted(range(40), key=lambda i: rank(uid(*rows[i])))[:12])


AFTER = st.lists(
    st.tuples(RANKS, st.sets(st.integers(0, 4), max_size=3), st.booleans()), max_size=60
)


@LIMITED
@given(AFTER, st.integers(1, 6), st.sampled_from(["bottom_k", "independent"]))
def test_the_cap_after_the_download(
    sql_on: Any, pairs: list[tuple[int, set[int], bool]], cap: int, method: str
) -> None:
    """Of the pairs whose images are good the first `cap` of each query stay, none brought in by a
    draw that failed before."""
    tables = tables_of([(rank_, queries) for rank_, queries, _ in pairs])
    numbers = tables["standing"]["row"]
    good = [i for i, (_, _, fine) in enumerate(pairs) if fine]
    standing = {
        name: column.take(pa.array(good, pa.int64())) for name, column in tables["standing"].items()
    }
    if method == "bottom_k":
        given = {"match": tables["match"], "standing": standing}
        found = sql_on("48_bottom_k.sql", given, cap=cap, part=0, parts=1)
        only = [(rank_, queries if fine else set()) for rank_, queries, fine in pairs]
        assert {row for (row,) in found} == naive(only, cap)
        return
    reasons = pa.array([None if fine else "http_404" for _, _, fine in pairs], pa.string())
    given = {
        **tables,
        "standing": standing,
        "dedupe": {"row": numbers, "reason": pa.array([None] * len(pairs), pa.string())},
        "images": {"row": numbers, "reason": reasons},
    }
    found = sql_on("75_independent.sql", given, cap=cap)
    counts = Counter(q for _, queries, fine in pairs if fine for q in queries)
    expected = {i for i in good if any(drawn(pairs[i][0], q, cap, counts[q]) for q in pairs[i][1])}
    assert {row for (row,) in found} == expected
