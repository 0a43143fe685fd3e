"""One URL against a real server that does everything a hostile one would."""

from __future__ import annotations

import gzip
import os
import struct
import threading
import time
import zlib
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.download import Client, FetchLimits, opted_out, parse, read_local
from pipeline.guard import FetchError
from wit.schema import Reason

BODY = b"\xff\xd8\xff" + bytes(range(256)) * 20


def client(web: Any, **changes: Any) -> Client:
    values = {
        "timeout": 0.3,
        "deadline": 0.6,
        "max_bytes": 100_000,
        "retries": 0,
        "backoff": 0.01,
        "user_agent": "wit/0.1 (test)",
        "resolve": (("*.test", web.address),),
    }
    return Client(FetchLimits(**{**values, **changes}))


def refusal(client: Client, url: str) -> Reason:
    with pytest.raises(FetchError) as caught:
        client.get(url)
    return caught.value.reason


def test_a_body_arrives_and_we_say_who_we_are(web: Any) -> None:
    web.body("/a%20b.jpg", BODY)
    assert client(web).get("http://user:secret@a.test/a b.jpg#top") == BODY
    asked = web.asked["/a%20b.jpg"]
    assert asked["Host"] == "a.test"
    assert asked["User-Agent"] == "wit/0.1 (test)"
    assert "Authorization" not in asked


def test_names_and_paths_beyond_ascii(web: Any) -> None:
    web.body("/caf%C3%A9.jpg", BODY)
    assert client(web).get("http://bücher.test:80/café.jpg") == BODY
    assert web.asked["/caf%C3%A9.jpg"]["Host"] == "xn--bcher-kva.test"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (204, Reason.NOT_AN_IMAGE),
        (304, Reason.REDIRECTS),
        (403, Reason.HTTP_403),
        (404, Reason.HTTP_404),
        (410, Reason.HTTP_4XX),
        (429, Reason.HTTP_4XX),
        (500, Reason.HTTP_5XX),
        (503, Reason.HTTP_5XX),
    ],
)
def test_statuses(web: Any, code: int, reason: Reason) -> None:
    web.status("/x", code)
    assert refusal(client(web), "http://a.test/x") is reason


def test_only_failures_that_may_pass_are_tried_again(web: Any) -> None:
    web.in_turn("/flaky", 500, 503, data=BODY)
    assert client(web, retries=2).get("http://a.test/flaky") == BODY
    for path, code, hits in (("/gone", 404, 1), ("/broken", 500, 3), ("/busy", 429, 3)):
        web.status(path, code)
        refusal(client(web, retries=2), f"http://a.test{path}")
        assert web.hits[path] == hits


def test_retry_after_is_honoured(web: Any) -> None:
    web.status("/busy", 429, Retry_After="1")
    start = time.monotonic()
    refusal(client(web, retries=1), "http://a.test/busy")
    assert time.monotonic() - start >= 1
    web.status("/odd", 429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")
    refusal(client(web, retries=1), "http://a.test/odd")
    assert web.hits["/odd"] == 2


# --- redirects


def test_redirects_are_followed_a_few_times(web: Any) -> None:
    web.body("/image", BODY)
    for i in range(6):
        web.status(f"/{i}", 302, Location=f"http://b.test/{i - 1}" if i else "image")
    assert client(web).get("http://a.test/4") == BODY
    assert refusal(client(web), "http://a.test/5") is Reason.REDIRECTS


def test_redirect_loops(web: Any) -> None:
    web.status("/self", 301, Location="/self")
    web.status("/ping", 307, Location="/pong")
    web.status("/pong", 308, Location="/ping")
    assert refusal(client(web), "http://a.test/self") is Reason.REDIRECTS
    assert refusal(client(web), "http://a.test/ping") is Reason.REDIRECTS
    assert web.hits["/self"] == 1


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/secret",
        "http://localhost:{port}/secret",
        "http://[::1]:{port}/secret",
        "http://[::ffff:127.0.0.1]:{port}/secret",
        "http://2130706433:{port}/secret",
        "http://0x7f000001:{port}/secret",
        "http://public.test@127.0.0.1:{port}/secret",
        "//127.0.0.1:{port}/secret",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "https://192.168.0.1/",
    ],
)
def test_redirects_into_private_networks(web: Any, target: str) -> None:
    web.body("/secret", b"internal")
    web.status("/x", 302, Location=target.format(port=web.server_port))
    assert refusal(client(web), "http://a.test/x") is Reason.PRIVATE_ADDRESS
    assert web.hits["/secret"] == 0
    direct = target.format(port=web.server_port)
    if not direct.startswith("//"):
        assert refusal(client(web), direct) is Reason.PRIVATE_ADDRESS
        assert web.hits["/secret"] == 0


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://a.test/x",
        "gopher://a.test/x",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "http://a.test\\@127.0.0.1/",
        "http://:80/",
        "http://a.test:99999/",
    ],
)
def test_redirects_to_other_schemes_or_nonsense(web: Any, target: str) -> None:
    web.status("/x", 302, Location=target)
    assert refusal(client(web), "http://a.test/x") is Reason.REDIRECTS


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


# --- time


def test_a_drip_ends_at_the_deadline(web: Any) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not web.closing.wait(0.05):
            handler.wfile.write(b"x")

    def drip_headers(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not web.closing.wait(0.05):
            handler.wfile.write(b"X-A: b\r\n")

    web.answers |= {"/body": drip, "/headers": drip_headers}
    for path in ("/body", "/headers"):
        start = time.monotonic()
        assert refusal(client(web), f"http://a.test{path}") is Reason.TIMEOUT
        assert 0.5 < time.monotonic() - start < 1.5  # past the timeout of a single receive


def test_silence_ends_at_the_timeout(web: Any) -> None:
    web.answers["/silent"] = lambda handler: web.closing.wait(5)
    start = time.monotonic()
    assert refusal(client(web, deadline=5.0), "http://a.test/silent") is Reason.TIMEOUT
    assert time.monotonic() - start < 2


# --- size


def chunked(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_endless_and_oversized_bodies(web: Any) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        chunked(handler)
        while not web.closing.is_set():
            handler.wfile.write(b"1000\r\n" + bytes(4096) + b"\r\n")

    web.answers["/endless"] = endless
    web.status("/claims", 200, b"few", Content_Length="1000000000")
    web.body("/large", bytes(100_001))
    web.body("/largest", bytes(100_000))
    for path in ("/endless", "/claims", "/large"):
        assert refusal(client(web), f"http://a.test{path}") is Reason.TOO_MANY_BYTES
    assert len(client(web).get("http://a.test/largest")) == 100_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_zipped_bodies_and_zip_bombs(web: Any, encoding: str) -> None:
    zip_ = gzip.compress if encoding == "gzip" else zlib.compress
    web.body("/zipped", zip_(BODY), Content_Encoding=encoding)
    web.body("/bomb", zip_(bytes(50_000_000)), Content_Encoding=encoding)
    web.body("/liar", BODY, Content_Encoding=encoding)
    assert client(web).get("http://a.test/zipped") == BODY
    assert refusal(client(web), "http://a.test/bomb") is Reason.TOO_MANY_BYTES
    assert refusal(client(web), "http://a.test/liar") is Reason.NOT_AN_IMAGE


def test_header_bombs(web: Any) -> None:
    def many(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000 + b"\r\n")

    def long(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 10_000_000 + b"\r\n\r\n")

    def rubbish(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\0\1\2 not http\r\n\r\n")

    web.answers |= {"/many": many, "/long": long, "/rubbish": rubbish}
    for path in ("/many", "/long", "/rubbish"):
        assert refusal(client(web), f"http://a.test{path}") is Reason.CONNECTION


def test_broken_connections(web: Any) -> None:
    def reset(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
        handler.connection.close()

    def cut_chunk(handler: BaseHTTPRequestHandler) -> None:
        chunked(handler)
        handler.wfile.write(b"1000\r\n" + bytes(100))

    web.answers |= {"/reset": reset, "/chunk": cut_chunk}
    web.status("/short", 200, BODY[:100], Content_Length=str(len(BODY)))
    for path in ("/reset", "/chunk", "/short"):
        assert refusal(client(web, retries=1), f"http://a.test{path}") is Reason.CONNECTION
        assert web.hits[path] == 2


def test_tls_to_a_server_that_speaks_none(web: Any) -> None:
    assert refusal(client(web), "https://a.test/x") is Reason.TLS


def test_nobody_listens(web: Any) -> None:
    lonely = client(web, resolve=(("a.test", "127.0.0.1:1"),))
    assert refusal(lonely, "http://a.test/x") is Reason.CONNECTION


def test_one_client_serves_many_threads(web: Any) -> None:
    for i in range(20):
        web.body(f"/{i}", bytes([i]) * 1000)
    shared, found = client(web, deadline=10.0, timeout=10.0), dict[int, bytes]()

    def work(i: int) -> None:
        found[i] = shared.get(f"http://h{i}.test/{i}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: bytes([i]) * 1000 for i in range(20)}


# --- consent


@pytest.mark.parametrize(
    ("values", "out"),
    [
        ([], False),
        (["noai"], True),
        (["all"], False),
        (["nofollow, NoImageAI"], True),
        (["otherbot: noai"], False),
        (["otherbot: noindex, noai"], False),
        (["wit: noai"], True),
        (["otherbot: nofollow", "noindex"], True),
        (["max-snippet: -1, noai"], True),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noarchive"], False),
        (["none"], True),
    ],
)
def test_robots_headers(values: list[str], out: bool) -> None:
    headers = Message()
    for value in values:
        headers["X-Robots-Tag"] = value
    assert opted_out(headers, "wit") is out


def test_an_opt_out_is_honoured_before_the_body(web: Any) -> None:
    web.body("/mine.jpg", BODY, X_Robots_Tag="noai")
    assert refusal(client(web), "http://a.test/mine.jpg") is Reason.OPTED_OUT


# --- local files


def test_local_files_stay_under_their_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a.jpg").write_bytes(BODY)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "out").symlink_to(tmp_path)
    (root / "link.jpg").symlink_to(root / "in" / "a.jpg")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    assert read_local(root, "in/a.jpg", 10_000) == BODY
    assert read_local(root, "link.jpg", 10_000) == BODY
    for path in ("../secret", "out/secret", "/etc/passwd", str(tmp_path / "secret"), "none.jpg"):
        with pytest.raises(FetchError) as caught:
            read_local(root, path, 10_000)
        assert caught.value.reason is Reason.NO_FILE
    for path in ("in", "", "pipe", "loop", "a\0b", "x" * 5000):
        with pytest.raises(FetchError) as caught:
            read_local(root, path, 10_000)
        assert caught.value.reason is Reason.NO_FILE
    with pytest.raises(FetchError) as caught:
        read_local(root, "in/a.jpg", 100)
    assert caught.value.reason is Reason.TOO_MANY_BYTES
