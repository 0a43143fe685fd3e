"""30_filter.sql: one smallest row for each reason, and the order in which they apply."""

from __future__ import annotations

from typing import Any

from wit.schema import Reason

TEXT = {"min_chars": 5, "min_words": 2, "max_chars": 40, "boilerplate_urls": 3}
GOOD = "http://h.example/good.jpg"


def test_each_reason_and_their_order(run_until: Any) -> None:
    cases: list[tuple[str | None, str | None, str | None]] = [
        (GOOD, "a red dog", None),
        (GOOD, "a dog", None),  # five characters, two words
        (GOOD, None, "no_text"),
        (GOOD, " \u200b\n", "no_text"),
        (None, None, "no_text"),  # the first that applies
        (None, "a dog", "no_url"),
        ("file:///x", "dog", "url_scheme"),
        (GOOD, "dog!", "text_too_short"),  # four characters
        (GOOD, "doggies", "text_too_short"),  # one word
        (GOOD, "a dog " + "!" * 35, "text_too_long"),
        (GOOD, "a dog " + "!" * 34, None),  # forty characters
        (GOOD, "der kleine Hund läuft auf der Wiese", "language"),
        (GOOD, "灰色背景上的一个红色小圆圈", "language"),  # no spaces, yet many words
        (GOOD, "two cats", "no_query"),
    ]
    rows = [(url, text) for url, text, _ in cases]
    found = run_until("30_filter", rows, queries=["dog"], text=TEXT).reasons("30_filter")
    assert [(*rows[row], reason) for row, reason in found.items()] == cases
    assert {reason for reason in found.values() if reason} <= {reason.value for reason in Reason}


def test_boilerplate_is_many_urls_not_many_rows(run_until: Any) -> None:
    rows = [(f"http://h.example/{i}", "a stock dog") for i in range(4)]
    rows += [(f"http://h.example/x{i}", "a rare dog") for i in range(3)]
    rows += [("http://h.example/same#" + str(i), "a known dog") for i in range(6)]
    rows += [("ftp://h.example/" + str(i), "a far dog") for i in range(6)]
    found = run_until("30_filter", rows, queries=["dog"], text=TEXT).reasons("30_filter")
    assert list(found.values()) == ["boilerplate"] * 4 + [None] * 9 + ["url_scheme"] * 6
