"""12_urls.sql: spellings of one address share a key, different addresses don't."""

from __future__ import annotations

from typing import Any

SAME = [
    "http://host.example/a/B.jpg?x=1&y=2",
    "HTTP://Host.EXAMPLE/a/B.jpg?x=1&y=2",
    "http://host.example:80/a/B.jpg?x=1&y=2",
    "http://host.example/a/B.jpg?x=1&y=2#part",
    "http://host.example/a/B.jpg?utm_source=mail&x=1&y=2",
    "http://host.example/a/B.jpg?x=1&utm_campaign=a&fbclid=Z9&y=2",
    "http://host.example/a/B.jpg?x=1&y=2&gclid=1",
    "  http://host.example/a/B.jpg?x=1&y=2\n",
]
OTHER = [
    "https://host.example/a/B.jpg?x=1&y=2",
    "http://host.example:8080/a/B.jpg?x=1&y=2",
    "http://host.example/a/b.jpg?x=1&y=2",
    "http://host.example/a/B.jpg?y=2&x=1",
    "http://www.host.example/a/B.jpg?x=1&y=2",
    "http://me@host.example/a/B.jpg?x=1&y=2",
    "http://host.example/a/B.jpg",
    "http://host.example/a/B.jpg?xutm_source=1&x=1&y=2",
]


def urls(run_until: Any, *addresses: str | None) -> list[dict[str, Any]]:
    rows = run_until("12_urls", [(address, "a dog") for address in addresses])("12_urls")
    assert [row["row"] for row in rows] == list(range(len(addresses)))
    return list(rows)


def test_spellings_of_one_address(run_until: Any) -> None:
    same = urls(run_until, *SAME)
    assert len({row["url_key"] for row in same}) == 1
    assert {row["reason"] for row in same} == {None}


def test_different_addresses(run_until: Any) -> None:
    keys = [row["url_key"] for row in urls(run_until, SAME[0], *OTHER)]
    assert len(set(keys)) == len(keys)


def test_only_the_tracking_part_goes(run_until: Any) -> None:
    one, bare, slash = urls(
        run_until, "http://h.example/?utm_source=x", "http://h.example", "http://h.example/"
    )
    assert one["url_key"] == bare["url_key"] == slash["url_key"]


VERDICTS: list[tuple[str | None, str | None, str | None]] = [
    ("http://WWW.Host.example:8080/x", "host.example", None),
    ("https://user:pw@a.b.example/x?q=http://other.example", "a.b.example", None),
    ("http://[2001:db8::1]:80/x", "[2001:db8::1]", None),
    ("http://münchen.example/ü", "münchen.example", None),
    (None, None, "no_url"),
    ("", None, "no_url"),
    (" \t\n", None, "no_url"),
    ("http://", None, "no_url"),
    ("http:///x.jpg", None, "no_url"),
    ("//host.example/x.jpg", None, "no_url"),
    ("/x.jpg", None, "no_url"),
    ("not a url", None, "no_url"),
    ("http://host.example:99999/x", "host.example", "no_url"),
    ("http://host.example:port/x", None, "no_url"),
    ("http://[::1/x", None, "no_url"),
    ("file:///etc/passwd", None, "url_scheme"),
    ("FTP://host.example/x", "host.example", "url_scheme"),
    ("data:image/png;base64,AAAA", None, "url_scheme"),
    ("javascript:alert(1)", None, "url_scheme"),
]


def test_domain_and_reason(run_until: Any) -> None:
    found = urls(run_until, *(url for url, _, _ in VERDICTS))
    got = [
        (case[0], row["domain"], row["reason"]) for case, row in zip(VERDICTS, found, strict=True)
    ]
    assert got == VERDICTS
