"""The sample's web: its pictures on their invented hosts, served from one loopback port.

The Host header and the path name the file, `images/HOST/PATH`, and `site.json` beside
`images/` says which URLs misbehave and how (`Reply`). Only files that were there at the start
are served, found by an exact name, so no request can leave the folder.
"""

from __future__ import annotations

import json
import mimetypes
import os
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from wit.errors import InputError

DRIP_SECONDS = 0.1  # between two bytes of a slow drip
NO_LINGER = struct.pack("ii", 1, 0)  # closing then sends RST instead of FIN

Mode = Literal["plain", "drip", "silent", "reset", "cut", "endless"]


@dataclass(frozen=True)
class Reply:
    """What the server does with one URL, where that differs from sending its file.

    Attributes:
        status: HTTP status; anything but 200 has a short HTML page as its body.
        headers: headers set beside, or instead of, the ordinary ones.
        mode: plain; drip (a byte each tenth of a second); silent (no answer); reset (RST
            before an answer); cut (half of the announced body, then the end); endless (a
            chunked body that never ends).
        failures: this many requests are answered 500 before the reply holds.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    mode: Mode = "plain"
    failures: int = 0


def site_key(url: str) -> str:
    """`host/path` of a URL, without port, query, fragment and percent signs."""
    parts = urlsplit(url)
    return f"{parts.hostname}{unquote(parts.path)}"


def write_replies(replies: dict[str, Reply], path: Path) -> None:
    """Write the table of `Reply` by `site_key` as JSON."""
    table = {key: asdict(reply) for key, reply in sorted(replies.items())}
    path.write_text(json.dumps(table, indent=1) + "\n", "utf-8")


def read_replies(path: Path) -> dict[str, Reply]:
    return {key: Reply(**reply) for key, reply in json.loads(path.read_text("utf-8")).items()}


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # joined at the end: no connection outlives the server
    request_queue_size = 256

    def __init__(self, port: int, files: dict[str, Path], replies: dict[str, Reply]) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.files, self.replies = files, replies
        self.stopping = threading.Event()
        self.connections: set[socket.socket] = set()
        self._failed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def fails_now(self, key: str, times: int) -> bool:
        """Whether this request is still one of the first `times` for that URL."""
        with self._lock:
            self._failed[key] += 1
            return self._failed[key] <= times

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        for connection in list(self.connections):
            with suppress(OSError):  # it may have ended by itself
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients may go away at any time
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30  # of an idle connection, in seconds

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)
        if self.server.stopping.is_set():  # too late for `stop` to see this connection
            self.connection.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the requests are the pipeline's business, not the reader's."""

    def do_GET(self) -> None:
        host = (self.headers.get("Host") or "").lower()
        key = site_key(f"http://{host}{self.path}")
        reply = self.server.replies.get(key, Reply())
        if reply.failures and self.server.fails_now(key, reply.failures):
            reply = Reply(500)
        try:
            self._send(reply, self.server.files.get(key))
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _send(self, reply: Reply, file: Path | None) -> None:
        status, kind = HTTPStatus(reply.status), "text/html; charset=utf-8"
        if file is None and status == HTTPStatus.OK:
            status = HTTPStatus.NOT_FOUND
        if file is not None and status == HTTPStatus.OK:
            body = file.read_bytes()
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        else:
            body = f"<html><title>{status.value} {status.phrase}</title></html>\n".encode()
        if reply.mode in ("silent", "reset"):
            self._say_nothing(reply.mode)
            return
        length = {"Transfer-Encoding": "chunked"} if reply.mode == "endless" else {}
        headers = {"Content-Type": kind, **length, **reply.headers}
        if not length:
            headers.setdefault("Content-Length", str(len(body)))
        lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._send_body(reply.mode, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body)

    def _send_body(self, mode: Mode, head: bytes, body: bytes) -> None:
        """`head` and `body` leave in one packet where they can: no wait for an ACK between."""
        if mode == "plain":
            self.wfile.write(head + body)
            return
        self.close_connection = True
        if mode == "cut":
            self.wfile.write(head + body[: len(body) // 2])
        elif mode == "drip":
            self.wfile.write(head)
            for byte in body:
                self.wfile.write(bytes([byte]))
                if self.server.stopping.wait(DRIP_SECONDS):
                    return
        elif mode == "endless":
            self.wfile.write(head)
            while not self.server.stopping.is_set():
                self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))

    def _say_nothing(self, mode: Mode) -> None:
        self.close_connection = True
        if mode == "silent":
            self.server.stopping.wait(self.timeout)
            return
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.server.connections.discard(self.connection)
        os.close(self.connection.detach())  # a plain close() would wait for rfile and send FIN


@contextmanager
def serve(sample: Path, port: int = 0) -> Iterator[int]:
    """Serve the sample folder on 127.0.0.1 while the context lasts; yields the port.

    What a URL has answered so far (500, then 200) is forgotten with the server.

    Raises:
        InputError: no sample there, or the port is taken.
    """
    site, images = sample / "site.json", sample / "images"
    if not site.is_file():
        raise InputError(f"{sample}: no sample there; write one with `wit sample write`")
    files = {
        file.relative_to(images).as_posix(): file
        for file in sorted(images.rglob("*"))
        if file.is_file()
    }
    try:
        server = _Server(port, files, read_replies(site))
    except OSError as error:
        raise InputError(f"port {port}: {error.strerror}; choose another --port") from None
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="sample-server")
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.stop()
        thread.join()
