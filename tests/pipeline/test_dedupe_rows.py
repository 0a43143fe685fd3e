"""40_dedupe.sql against definitions a reader can check by eye."""

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
RANKS = st.integers(0, 2**64 - 1) | st.integers(0, 3)
TEXTS = ("red dog", "dog red", "a red dog", "a red dog runs", "cat", "blue cat in a hat")
# (URL, text, rank, merit) of each row
ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 5), RANKS, st.sampled_from([0.0, -1.0, 1e300])),
    max_size=30,
)


def naive(
    rows: list[tuple[int, int, int, float]], per_image: int, likeness: float
) -> dict[int, str | None]:
    """The rows of a URL from the best on: each stays unless it repeats a caption, says the same as
    one before it that said something new, or comes when enough are there."""
    reasons: dict[int, str | None] = {}
    for url in {url for url, _, _, _ in rows}:
        seen: set[int] = set()
        new: list[frozenset[str]] = []
        order = [i for i in range(len(rows)) if rows[i][0] == url]
        for i in sorted(order, key=lambda i: (rows[i][3], rows[i][2], i)):
            words = frozenset(TEXTS[rows[i][1]].split())
            if rows[i][1] in seen:
                reasons[i] = "duplicate_pair"
                continue
            seen.add(rows[i][1])
            like = any(len(words & w) >= likeness * len(words | w) for w in new)
            if per_image != 1 and like:
                reasons[i] = "near_duplicate_caption"
                continue
            new.append(words)
            reasons[i] = "duplicate_url" if per_image and len(new) > per_image else None
    return reasons


@LIMITED
@given(ROWS, st.integers(0, 3), st.sampled_from([0.6, 0.75, 1.0]))
def test_dedupe_is_the_plain_definition(
    sql_on: Any, rows: list[tuple[int, int, int, float]], per_image: int, likeness: float
) -> None:
    number = pa.array(range(len(rows)), pa.int64())
    texts = [TEXTS[t] for _, t, _, _ in rows]
    tables = {
        "filter": {
            "row": number,
            "reason": pa.array([None] * len(rows), pa.string()),
            "rank": pa.array([r for _, _, r, _ in rows], pa.uint64()),
            "url_key": pa.array([u for u, _, _, _ in rows], pa.uint64()),
            "text_key": pa.array([t for _, t, _, _ in rows], pa.uint64()),
            "merit": pa.array([m for _, _, _, m in rows], pa.float64()),
        },
        "clean": {"row": number, "words": pa.array(texts, pa.string())},
    }
    values = {"captions_per_image": per_image, "caption_likeness": likeness, "parts": 2}
    found = [
        line for part in range(2) for line in sql_on("40_dedupe.sql", tables, part=part, **values)
    ]
    reasons = naive(rows, per_image, likeness)
    assert {row: reason for row, reason, _, _ in found} == reasons
    for row, reason, kept_row, rank_ in found:
        assert rank_ == rows[row][2]
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


def test_captions_of_one_url(run_until: Any) -> None:
    texts = ["a red dog", "Red dog, a!", "a red dog runs on the beach", "a red dog runs on a beach"]
    rows = [("http://h.example/x.jpg", text) for text in texts]
    every = run_until("40_dedupe", rows, queries=["dog"], dedupe={"captions_per_image": 0})
    assert sorted(map(str, every.reasons("40_dedupe").values())) == [
        *["None"] * 2,
        *["near_duplicate_caption"] * 2,
    ]
    one = run_until("40_dedupe", rows, queries=["dog"])
    assert sorted(map(str, one.reasons("40_dedupe").values())) == ["None", *["duplicate_url"] * 3]
    longest = run_until("40_dedupe", rows, queries=["dog"], dedupe={"keep": "longest"})
    assert longest.reasons("40_dedupe")[2] is None


@pytest.mark.parametrize("captions", [0, 2])
def test_a_url_with_very_many_captions_is_bounded(run_until: Any, captions: int) -> None:
    """Only the best 64 are compared with each other, so the work grows with the rows alone."""
    rows = [("http://h.example/x.jpg", f"dog {i} of many in a long list {i}") for i in range(300)]
    dedupe = {"captions_per_image": captions, "caption_likeness": 0.5}
    found = run_until("40_dedupe", rows, queries=["dog"], dedupe=dedupe).reasons("40_dedupe")
    assert list(found.values()).count("near_duplicate_caption") == 63
