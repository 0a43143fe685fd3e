"""A page, its pictures and its answers, on 127.0.0.1 unless told otherwise, and for one browser.

The address that is printed holds a token; the first visit trades it for a cookie, and without
the cookie nothing is served. Requests for another host (DNS rebinding) and posts from other pages
are refused. The content security policy allows what this server sends and nothing else, no inline
script or style either. Pictures of evaluation sets come from strangers: they are decoded under the
pixel cap and sent as JPEGs of our own making.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from wit.errors import InputError, WitError
from wit.image import ImageError, decode, encode

HERE = Path(__file__).parent
KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
POLICY = (
    "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
COOKIE = "wit"
MOST_BYTES = 64 * 1024  # of a post
SIDE = 640  # pixels of a shown picture's longer side

# The name of an action and what was posted to what is answered; InputError becomes status 400,
# any other WitError 500.
Actions = Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]
# A picture's name to its encoded bytes, or None where there is none.
Pictures = Callable[[str], bytes | None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a browser keeps its connection open

    def __init__(
        self, at: tuple[str, int], page: str, actions: Actions, pictures: Pictures, max_pixels: int
    ) -> None:
        self.bound = ipaddress.ip_address(at[0])
        if self.bound.version == 6:
            self.address_family = socket.AF_INET6
        super().__init__(at, _Handler)
        names = {"/": f"{page}.html", "/page.js": f"{page}.js", "/page.css": "page.css"}
        names |= {f"/{own.name}": own.name for own in HERE.glob(f"{page}[.-]*") if own.is_file()}
        self.files = {
            path: ((HERE / name).read_bytes(), KINDS[name.rpartition(".")[2]])
            for path, name in names.items()
        }
        self.actions, self.pictures, self.max_pixels = actions, pictures, max_pixels
        self.token = secrets.token_urlsafe(24)
        self.port = int(self.server_address[1])
        # browsers share cookies between the ports of a host: two pages must not share a name
        self.cookie = f"{COOKIE}{self.port}"
        self.lock: AbstractContextManager[Any] = threading.Lock()
        self.most_bytes = MOST_BYTES

    @property
    def name(self) -> str:
        """What the page is called in the address that is printed."""
        if self.bound.is_unspecified:
            return socket.gethostname()
        return f"[{self.bound}]" if self.bound.version == 6 else str(self.bound)

    def answers_to(self, host: str) -> bool:
        """Whether a request's Host is this server: an address, or a name that it knows as its own.

        A name that a stranger's DNS leads here (rebinding) is not.
        """
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return False
        if port != self.port:
            return False
        try:
            asked = ipaddress.ip_address(name)
        except ValueError:
            return name in ({"localhost"} if self.bound.is_loopback else _own_names())
        return self.bound.is_unspecified or asked == self.bound

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a browser may go away at any time
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the answers are what is kept."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if not self.server.answers_to(self.headers.get("Host") or ""):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
        elif address.path == "/" and "token" in (query := parse_qs(address.query)):
            if self._is_token(query["token"][0]):
                cookie = (
                    f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
                )
                self._send(HTTPStatus.SEE_OTHER, b"", "text/plain",
                           {"Location": "/", "Set-Cookie": cookie})  # fmt: skip
            else:
                self._refuse(HTTPStatus.FORBIDDEN)
        elif not self._known():
            self._refuse(HTTPStatus.FORBIDDEN)
        elif address.path in self.server.files:
            self._send(HTTPStatus.OK, *self.server.files[address.path])
        elif address.path == "/favicon.ico":  # browsers ask for it unasked
            self._send(HTTPStatus.NO_CONTENT, b"", "text/plain")
        elif address.path.startswith("/picture/"):
            self._picture(address.path.removeprefix("/picture/"))
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length") or ""
        origin = self.headers.get("Origin")
        action = self.server.actions.get(self.path.removeprefix("/"))
        if not self.server.answers_to(self.headers.get("Host") or ""):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
        elif not self._known() or (
            origin is not None and not self.server.answers_to(origin.partition("://")[2])
        ):
            self._refuse(HTTPStatus.FORBIDDEN)
        elif self.headers.get("Content-Type") != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        elif not length.isascii() or not length.isdigit() or int(length) > self.server.most_bytes:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif action is None:
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            self._act(action, self.rfile.read(int(length)))

    def _act(self, action: Callable[[dict[str, Any]], dict[str, Any]], body: bytes) -> None:
        try:
            asked = json.loads(body)
            if not isinstance(asked, dict):
                raise InputError("not a JSON object")
            with self.server.lock:
                answer, status = action(asked), HTTPStatus.OK
        except ValueError:
            answer, status = {"error": "not JSON"}, HTTPStatus.BAD_REQUEST
        except InputError as error:
            answer, status = {"error": str(error)}, HTTPStatus.BAD_REQUEST
        except WitError as error:  # the corpus or the disk, not what was asked
            answer, status = {"error": str(error)}, HTTPStatus.INTERNAL_SERVER_ERROR
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _picture(self, name: str) -> None:
        data = self.server.pictures(name)
        if data is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        try:
            picture = decode(data, self.server.max_pixels)
        except ImageError:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY)
            return
        picture.thumbnail((SIDE, SIDE))
        self._send(HTTPStatus.OK, encode(picture, "JPEG", 92), "image/jpeg")

    def _known(self) -> bool:
        try:
            cookie = SimpleCookie(self.headers.get("Cookie") or "").get(self.server.cookie)
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _is_token(self, value: str) -> bool:
        return hmac.compare_digest(value.encode(), self.server.token.encode())

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True  # what was posted may not have been read
        self._send(status, f"{status.value} {status.phrase}\n".encode(), "text/plain")

    def _send(
        self, status: HTTPStatus, body: bytes, kind: str, more: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        kind += "; charset=utf-8" if kind.startswith("text/") else ""
        own = {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in {**HEADERS, **own, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _own_names() -> set[str]:
    return {name.lower() for name in (socket.gethostname(), socket.getfqdn())}


@contextmanager
def serve(
    page: str,
    actions: Actions,
    pictures: Pictures,
    port: int = 0,
    max_pixels: int = 100_000_000,
    *,
    host: str = "127.0.0.1",
    most_bytes: int = MOST_BYTES,
    one_by_one: bool = True,
) -> Iterator[str]:
    """Serve one page of this folder while the context lasts; yields the address to open.

    Args:
        page: name of its .html and .js; more files whose names begin so are served too.
        port: 0 takes a free one.
        host: address to listen on; with another than this machine's own, others can reach the page.
        most_bytes: of a post.
        one_by_one: actions never run at the same time.

    Raises:
        InputError: the port is taken, or the address is not this machine's.
    """
    try:
        server = _Server((host, port), page, actions, pictures, max_pixels)
    except OSError as error:
        where = f"port {port}" if host == "127.0.0.1" else f"{host} port {port}"
        raise InputError(f"{where}: {error.strerror}; choose another --port") from None
    server.most_bytes = most_bytes
    if not one_by_one:
        server.lock = nullcontext()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="page")
    thread.start()
    try:
        yield f"http://{server.name}:{server.port}/?token={server.token}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
