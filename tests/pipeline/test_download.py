"""One URL against a real server that does everything a hostile one would."""

from __future__ import annotations

import gzip
import shutil
import ssl
import struct
import subprocess
import time
import zlib
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from pipeline import download, hosts
from pipeline.guard import FetchError
from wit.schema import Reason

from .downloads import BODY, client, refusal


def test_a_body_arrives_and_we_say_who_we_are(web: Any) -> None:
    web.body("/a%20b.jpg", BODY)
    assert client(web).get("http://user:secret@a.test/a b.jpg#top") == BODY
    asked = web.asked["/a%20b.jpg"]
    assert asked["Host"] == "a.test"
    assert asked["User-Agent"] == "wit/0.1 (test)"
    assert "Authorization" not in asked


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
        hurried = client(web, timeout=0.3, deadline=0.6)
        assert refusal(hurried, f"http://a.test{path}") is Reason.TIMEOUT
        assert 0.5 < time.monotonic() - start < 4  # past the timeout of a single receive


def test_silence_ends_at_the_timeout(web: Any) -> None:
    web.answers["/silent"] = lambda handler: web.closing.wait(6)
    start = time.monotonic()
    assert refusal(client(web, timeout=0.3), "http://a.test/silent") is Reason.TIMEOUT
    assert time.monotonic() - start < 4


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
        assert web.hits[path] in (2, 4)  # aiohttp itself may ask twice: a connection had gone stale


def test_tls_to_a_server_that_speaks_none(web: Any) -> None:
    assert refusal(client(web), "https://a.test/x") is Reason.TLS


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_certificates(web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused from a stranger, or for another name; taken when its maker is trusted."""
    key, cert = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=a", "-addext", "subjectAltName=DNS:a.test"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    web.body("/x", BODY)
    assert refusal(client(web), "https://a.test/x") is Reason.TLS
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    assert client(web).get("https://a.test/x") == BODY
    assert refusal(client(web), "https://b.test/x") is Reason.TLS


def test_nobody_listens(web: Any) -> None:
    lonely = client(web, resolve=(("a.test", "127.0.0.1:1"),))
    assert refusal(lonely, "http://a.test/x") is Reason.CONNECTION


def test_connections_are_kept_and_shared_out(web: Any) -> None:
    """Many URLs of one host: few connections, used again, no more of them than allowed."""
    seen, at_once, most = set(), 0, 0

    def answer(handler: BaseHTTPRequestHandler) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.01)
        at_once -= 1
        seen.add(handler.client_address)
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")

    web.RequestHandlerClass.protocol_version = "HTTP/1.1"
    try:
        for i in range(40):
            web.answers[f"/{i}"] = answer
        shared = client(web, host_connections=3)
        found = shared.all(*(f"http://a.test/{i}" for i in range(40)))
    finally:
        web.RequestHandlerClass.protocol_version = "HTTP/1.0"
    assert [item.body for item in found if not isinstance(item, FetchError)] == [b"body"] * 40
    assert most <= 3
    assert len(seen) <= 3


def test_a_host_is_asked_no_more_often_than_its_rate(web: Any) -> None:
    for i in range(6):
        web.body(f"/{i}", BODY)
    start = time.monotonic()
    client(web, host_rate=20.0).all(*(f"http://a.test/{i}" for i in range(6)))
    assert time.monotonic() - start >= 5 / 20


def test_a_host_that_is_down_is_not_asked_again_and_again(
    web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "STRIKES", 3)

    def silent(handler: BaseHTTPRequestHandler) -> None:
        web.closing.wait(2)

    for i in range(30):
        web.answers[f"/{i}"] = silent
    found = client(web, host_connections=2, timeout=0.1).all(
        *(f"http://a.test/{i}" for i in range(30))
    )
    assert {item.reason for item in found if isinstance(item, FetchError)} == {Reason.TIMEOUT}
    assert web.hits.total() <= 4


def test_a_body_slower_than_the_least_rate(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RATE_AFTER_S", 0.2)

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not web.closing.wait(0.02):
            handler.wfile.write(b"x")

    web.answers["/drip"] = drip
    start = time.monotonic()
    slow = client(web, deadline=30.0, min_rate=1000.0)
    assert refusal(slow, "http://a.test/drip") is Reason.TIMEOUT
    assert time.monotonic() - start < 4


def test_bodies_that_are_too_many_at_once_give_way(
    web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "BODIES_BYTES", 5000)
    monkeypatch.setattr(download, "LARGE_BYTES", 4000)
    web.body("/large", bytes(9000))
    web.body("/small", bytes(3000))
    with pytest.raises(FetchError) as caught:
        client(web).get("http://a.test/large")
    assert (caught.value.reason, caught.value.passing) == (Reason.TOO_MANY_BYTES, True)
    assert len(client(web).get("http://a.test/small")) == 3000


def test_loopback_only_where_it_is_allowed(web: Any) -> None:
    web.body("/x", BODY)
    url = f"http://{web.address}/x"
    assert refusal(client(web), url) is Reason.PRIVATE_ADDRESS
    assert client(web, allow_loopback=True).get(url) == BODY
    assert refusal(client(web, allow_loopback=True), "http://10.0.0.1/") is Reason.PRIVATE_ADDRESS


def test_where_a_body_came_from(web: Any) -> None:
    web.status("/x", 302, Location="http://b.test/y")
    web.body("/y", BODY, Content_Type="image/jpeg", ETag='"7"', Last_Modified="then")
    found = client(web).download("http://a.test/x")
    assert (found.url, found.status) == ("http://b.test/y", 200)
    assert found.headers == {"Content-Type": "image/jpeg", "ETag": '"7"', "Last-Modified": "then"}
    web.status("/gone", 302, Location="http://b.test/none")
    with pytest.raises(FetchError) as caught:
        client(web).get("http://a.test/gone")
    assert (caught.value.where, caught.value.status) == ("http://b.test/none", 404)
