"""Which URLs are asked for, against a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.address import parse
from wit.schema import Reason

from .downloads import BODY, client, refusal


def test_names_and_paths_beyond_ascii(web: Any) -> None:
    web.body("/caf%C3%A9.jpg", BODY)
    assert client(web).get("http://bücher.test:80/café.jpg") == BODY
    assert web.asked["/caf%C3%A9.jpg"]["Host"] == "xn--bcher-kva.test"


def test_other_schemes_are_never_opened(web: Any, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(BODY)
    for url in (f"file://{tmp_path}/x.jpg", "ftp://a.test/x", "data:image/png;base64,AAAA"):
        assert refusal(client(web), url) is Reason.URL_SCHEME
    for url in ("", "x.jpg", "http://", "http://[::1", "http://a.test\r\nX: y/"):
        assert refusal(client(web), url) is Reason.NO_URL


@given(st.text(max_size=60))
def test_parse_takes_any_text(text: str) -> None:
    for url in (text, "http://" + text, "http://a.test/" + text):
        parts = parse(url)
        if parts is not None and parts.scheme in ("http", "https"):
            assert parts.hostname
            assert parts.hostname.isascii()


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://a.test/x", True),
        ("http://a.test:443/x", True),
        ("http://a.test:8080/x", True),
        ("http://a.test:22/x", False),
        ("http://a.test:25/x", False),
        ("http://a.test:6379/x", False),
        ("http://a.test:11211/x", False),
    ],
)
def test_odd_ports_are_refused_also_after_a_redirect(web: Any, url: str, allowed: bool) -> None:
    web.body("/x", BODY)
    web.status("/moved", 302, Location=url)
    for first in (url, "http://a.test/moved"):
        strict = client(web, any_port=False)
        if allowed:
            assert strict.get(first) == BODY
        else:
            assert refusal(strict, first) is Reason.URL_REFUSED


def test_user_names_by_policy(web: Any) -> None:
    web.body("/x", BODY)
    url = "http://ada:secret@a.test/x"
    found = client(web).download(url)
    assert (found.body, found.url) == (BODY, "http://a.test/x")  # nor is it written down
    assert refusal(client(web, userinfo="refuse"), url) is Reason.URL_REFUSED
