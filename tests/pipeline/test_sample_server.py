"""The sample's server does to a client what its table says, and nothing else."""

import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.sample import server
from pipeline.sample.server import Reply, serve, site_key, write_replies
from wit.errors import InputError

HOST = "www.pictures.example"
BODY = bytes(range(256)) * 40
REPLIES = {
    "forbidden.jpg": Reply(403),
    "moved.jpg": Reply(301, headers={"Location": "/plain.jpg"}),
    "flaky.jpg": Reply(failures=2),
    "typed.jpg": Reply(headers={"Content-Type": "text/plain"}),
    "drip.jpg": Reply(mode="drip"),
    "silent.jpg": Reply(mode="silent"),
    "reset.jpg": Reply(mode="reset"),
    "cut.jpg": Reply(mode="cut"),
    "endless.jpg": Reply(mode="endless"),
    "huge.jpg": Reply(mode="cut", headers={"Content-Length": "30000000000"}),
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "images" / HOST / "a b").mkdir(parents=True)
    for name in ["plain.jpg", "plain.webp", "a b/é.jpg", *REPLIES]:
        (folder / "images" / HOST / name).write_bytes(BODY)
    (folder / "secret.jpg").write_bytes(b"secret")
    write_replies(
        {f"{HOST}/{name}": reply for name, reply in REPLIES.items()}, folder / "site.json"
    )
    return folder


@pytest.fixture(scope="module")
def port(sample: Path) -> Iterator[int]:
    with serve(sample) as port:
        yield port


def get(port: int, path: str, host: str = HOST) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())
    finally:
        connection.close()


def test_files_are_found_by_host_and_path(port: int) -> None:
    assert get(port, "/plain.jpg") == (
        200,
        BODY,
        {"Content-Type": "image/jpeg", "Content-Length": str(len(BODY))},
    )
    assert get(port, "/plain.webp")[2]["Content-Type"] == "image/webp"
    assert get(port, "/plain.jpg?utm_source=x", HOST.upper() + ":80")[:2] == (200, BODY)
    assert get(port, "/a%20b/%C3%A9.jpg")[:2] == (200, BODY)
    assert get(port, "/plain.jpg", "other.example")[0] == 404
    assert get(port, "/none.jpg")[0] == 404


@pytest.mark.parametrize(
    "path", ["/../../secret.jpg", "/%2e%2e/%2e%2e/secret.jpg", "//secret.jpg", "/a%00b"]
)
def test_no_request_leaves_the_folder(port: int, path: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.split()[1] in (b"404", b"400")
    assert b"secret" not in answer


def test_one_connection_serves_many_requests(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    local = set()
    for _ in range(3):
        connection.request("GET", "/plain.jpg", headers={"Host": HOST})
        local.add(connection.sock.getsockname())
        assert connection.getresponse().read() == BODY
    connection.close()
    assert len(local) == 1


def test_statuses_types_and_redirects(port: int) -> None:
    status, body, headers = get(port, "/forbidden.jpg")
    assert (status, headers["Content-Type"]) == (403, "text/html; charset=utf-8")
    assert b"403 Forbidden" in body
    status, body, headers = get(port, "/moved.jpg")
    assert (status, headers["Location"]) == (301, "/plain.jpg")
    assert BODY not in body
    status, body, headers = get(port, "/typed.jpg")
    assert (status, body, headers["Content-Type"]) == (200, BODY, "text/plain")


def test_failures_come_first_and_are_forgotten_with_the_server(sample: Path) -> None:
    for _ in range(2):
        with serve(sample) as port:
            assert [get(port, "/flaky.jpg")[0] for _ in range(4)] == [500, 500, 200, 200]


def test_a_drip_gives_one_byte_at_a_time(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(f"GET /drip.jpg HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        sock.recv(65536)  # the headers, perhaps with a first byte
        start = time.monotonic()
        received = b"".join(sock.recv(65536) for _ in range(5))
        seconds = time.monotonic() - start
    assert received in BODY
    assert len(received) <= 1 + seconds / server.DRIP_SECONDS + 1


def test_silence_lasts_as_long_as_the_server(sample: Path) -> None:
    with serve(sample) as port:
        sock = socket.create_connection(("127.0.0.1", port), timeout=0.3)
        sock.sendall(f"GET /silent.jpg HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        with pytest.raises(TimeoutError):
            sock.recv(1)
        start = time.monotonic()
    assert time.monotonic() - start < 5  # it waits for nobody
    sock.close()


def test_reset_cut_and_endless(port: int) -> None:
    with pytest.raises(ConnectionResetError):
        get(port, "/reset.jpg")
    with pytest.raises(http.client.IncompleteRead) as cut:
        get(port, "/cut.jpg")
    assert (len(cut.value.partial), cut.value.expected) == (len(BODY) // 2, len(BODY) // 2)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/huge.jpg", headers={"Host": HOST})
    assert connection.getresponse().length == 30_000_000_000
    connection.close()
    connection.request("GET", "/endless.jpg", headers={"Host": HOST})
    assert connection.getresponse().read(1_000_000) == (BODY * 100)[:1_000_000]
    connection.close()


def test_rubbish_and_tls_leave_the_server_standing(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    for hello in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b"\r\n\r\n", b""):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(hello)
    assert get(port, "/plain.jpg")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_only_loopback_is_listened_on(port: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", port))  # free: the server did not take every address


def test_mistakes_are_named(sample: Path, port: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wit sample write"), serve(tmp_path):
        pass
    with pytest.raises(InputError, match=f"port {port}"), serve(sample, port):
        pass


def test_site_key() -> None:
    assert site_key("http://WWW.A.example:80/x/%C3%A9%20.jpg?q=1#f") == "www.a.example/x/é .jpg"
    assert site_key("http://a.test") == "a.test"
