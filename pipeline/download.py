"""One URL to the bytes of its body, over HTTP, from servers that may be hostile.

Everything is bounded: the time of an attempt, the bytes of the body (also after unzipping),
the headers (by http.client: 100 lines of 64 KiB), the redirects. Nothing but http and https is
opened. Credentials in a URL are never sent.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import ssl
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from pipeline.guard import Deadline, FetchError, Resolver
from wit.schema import Reason

MAX_REDIRECTS = 5
MAX_WAIT_S = 30.0  # of a Retry-After header
CHUNK = 64 * 1024
OPT_OUT = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
# directives of X-Robots-Tag that have a value after a colon, as a user agent's name has
VALUED = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})


@dataclass(frozen=True)
class FetchLimits:
    """What one download may take; see `pipeline.config.FetchConfig`.

    `resolve` is a tuple of (host, "address:port") so that the whole is hashable.
    """

    timeout: float
    deadline: float
    max_bytes: int
    retries: int
    backoff: float
    user_agent: str
    resolve: tuple[tuple[str, str], ...] = ()


class Client:
    """Downloads; one of it serves all threads of a process (one TLS context, one DNS cache)."""

    def __init__(self, limits: FetchLimits, resolver: Resolver | None = None) -> None:
        self._limits = limits
        self._resolver = resolver or Resolver(dict(limits.resolve))
        self._tls = ssl.create_default_context()
        self._token = limits.user_agent.partition("/")[0].strip().lower()

    def get(self, url: str) -> bytes:
        """The body of a URL, tried again after failures that may pass.

        Raises:
            FetchError: with the reason of the last attempt.
        """
        for attempt in range(self._limits.retries + 1):
            try:
                return self._attempt(url)
            except FetchError as error:
                if not error.passing or attempt == self._limits.retries:
                    raise
                wait = max(self._limits.backoff * 2**attempt, min(error.wait, MAX_WAIT_S))
                time.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _attempt(self, url: str) -> bytes:
        """One attempt, with every failure of the network as a `FetchError`."""
        try:
            return self._follow(url, Deadline(self._limits.deadline))
        except TimeoutError:
            raise FetchError(Reason.TIMEOUT, passing=True) from None
        except (ConnectionError, http.client.IncompleteRead):
            raise FetchError(Reason.CONNECTION, passing=True) from None
        except http.client.HTTPException:  # headers without end, a status line of rubbish
            raise FetchError(Reason.CONNECTION) from None
        except OSError:  # no route, broken TLS records in the body
            raise FetchError(Reason.CONNECTION, passing=True) from None

    def _follow(self, url: str, deadline: Deadline) -> bytes:
        parts = parse(url)
        if parts is None:
            raise FetchError(Reason.NO_URL)
        if parts.scheme not in ("http", "https"):
            raise FetchError(Reason.URL_SCHEME)
        seen: set[str] = set()
        for _ in range(MAX_REDIRECTS + 1):
            where = parts.geturl()
            if where in seen:
                break
            seen.add(where)
            answer = self._request(parts, deadline)
            if isinstance(answer, bytes):
                return answer
            target = parse(urljoin(where, answer.location))
            if target is None or target.scheme not in ("http", "https"):
                break
            parts = target
        raise FetchError(Reason.REDIRECTS)

    def _request(self, parts: SplitResult, deadline: Deadline) -> bytes | _Redirect:
        secure = parts.scheme == "https"
        host = parts.hostname or ""
        port = parts.port or (443 if secure else 80)
        with closing(self._connect(host, port, secure, deadline)) as sock:
            connection = http.client.HTTPConnection(host, port)
            connection.sock = _Wire(sock, self._limits.timeout, deadline)
            connection.request("GET", _target(parts), headers=self._headers(parts, secure))
            with connection.getresponse() as response:
                return self._answer(response)

    def _connect(self, host: str, port: int, secure: bool, deadline: Deadline) -> socket.socket:
        timeout = self._limits.timeout
        sock = self._resolver.connect(host, port, timeout, deadline)
        if not secure:
            return sock
        try:
            sock.settimeout(deadline.left(timeout))
            return self._tls.wrap_socket(sock, server_hostname=host)
        except TimeoutError:
            sock.close()
            raise
        except (OSError, ValueError):  # ssl.SSLError is an OSError; a name that SNI can't hold
            sock.close()
            raise FetchError(Reason.TLS) from None

    def _headers(self, parts: SplitResult, secure: bool) -> dict[str, str]:
        host = parts.hostname or ""
        name = f"[{host}]" if ":" in host else host
        port = parts.port
        return {
            "Host": name if port in (None, 443 if secure else 80) else f"{name}:{port}",
            "User-Agent": self._limits.user_agent,
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }

    def _answer(self, response: http.client.HTTPResponse) -> bytes | _Redirect:
        status, headers = response.status, response.headers
        if 300 <= status < 400:
            location = headers.get("Location")
            if location is None:
                raise FetchError(Reason.REDIRECTS)
            return _Redirect(location)
        if status != 200:
            raise _refusal(status, headers.get("Retry-After"))
        if opted_out(headers, self._token):
            raise FetchError(Reason.OPTED_OUT)
        return _read_body(response, self._limits.max_bytes)


@functools.lru_cache(maxsize=4)
def shared_client(limits: FetchLimits) -> Client:
    """The client of this process for these limits."""
    return Client(limits)


@dataclass(frozen=True)
class _Redirect:
    location: str


def parse(url: str) -> SplitResult | None:
    """Split a URL; None unless it has a scheme, a host where it needs one, and a sane port.

    A host that is not ASCII is put into its IDNA form. Backslashes and control characters,
    which parsers disagree about, make a URL unusable.
    """
    url = url.strip()
    if "\\" in url or any(ord(c) < 0x20 or ord(c) == 0x7F for c in url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if host is not None and not host.isascii():
            ascii_host = host.encode("idna").decode()
            parts = parts._replace(netloc=ascii_host + (f":{port}" if port is not None else ""))
    except ValueError:  # UnicodeError is one
        return None
    if not parts.scheme or (parts.scheme in ("http", "https") and (not host or port == 0)):
        return None
    if any(c.isspace() for c in parts.netloc):
        return None
    return parts._replace(fragment="")


def _target(parts: SplitResult) -> str:
    """Path and query as they go on the wire: percent-encoded where they are not yet."""
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    return path + ("?" + quote(parts.query, safe="/?%:@!$&'()*+,;=~-._[]|") if parts.query else "")


def _refusal(status: int, retry_after: str | None) -> FetchError:
    wait = (
        float(retry_after)
        if retry_after and retry_after.isascii() and retry_after.isdigit()
        else 0.0
    )
    if status == 403:
        return FetchError(Reason.HTTP_403)
    if status == 404:
        return FetchError(Reason.HTTP_404)
    if 400 <= status < 500:
        return FetchError(Reason.HTTP_4XX, passing=status in (408, 425, 429), wait=wait)
    if status >= 500:
        return FetchError(Reason.HTTP_5XX, passing=True, wait=wait)
    return FetchError(Reason.NOT_AN_IMAGE)  # 1xx and other 2xx promise no image


def opted_out(headers: Message, token: str) -> bool:
    """Whether an X-Robots-Tag forbids the use to everybody or to us (`token`)."""
    for value in headers.get_all("X-Robots-Tag", []):
        agent = ""
        for piece in str(value).lower().split(","):
            name, colon, rest = (part.strip() for part in piece.partition(":"))
            if colon and name in VALUED:
                continue
            if colon:
                agent, name = name, rest
            if agent in ("", "*", token) and name in OPT_OUT:
                return True
    return False


def _read_body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """The body, unzipped if the server zipped it unasked; at most `max_bytes` either way."""
    expected = response.length  # None when chunked or ended by the connection
    if expected is not None and expected > max_bytes:
        raise FetchError(Reason.TOO_MANY_BYTES)
    body = bytearray()
    received = 0
    unzip = _decoder(response.headers.get("Content-Encoding", ""))
    for chunk in _chunks(response):
        received += len(chunk)
        try:
            body += unzip.decompress(chunk, max_bytes + 1 - len(body)) if unzip else chunk
        except zlib.error:
            raise FetchError(Reason.NOT_AN_IMAGE) from None
        if len(body) > max_bytes or received > max_bytes:
            raise FetchError(Reason.TOO_MANY_BYTES)
    if expected is not None and received < expected:
        raise FetchError(Reason.CONNECTION, passing=True)
    return bytes(body)


class _Decoder(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _decoder(encoding: str) -> _Decoder | None:
    if encoding.strip().lower() in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    return None  # any other encoding leaves bytes that are no image, and are reported as such


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while chunk := response.read(CHUNK):
        yield chunk


class _Wire:
    """What http.client needs of a socket, with the deadline over every single receive."""

    def __init__(self, sock: socket.socket, timeout: float, deadline: Deadline) -> None:
        self._sock, self._timeout, self._deadline = sock, timeout, deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.left(self._timeout))
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Receiver(self._sock, self._timeout, self._deadline))

    def close(self) -> None:
        """Leave the socket open: http.client closes it before the body is read."""


class _Receiver(io.RawIOBase):
    def __init__(self, sock: socket.socket, timeout: float, deadline: Deadline) -> None:
        self._sock, self._timeout, self._deadline = sock, timeout, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._sock.settimeout(self._deadline.left(self._timeout))
        return self._sock.recv_into(buffer)


def read_local(root: Path, relative: str, max_bytes: int) -> bytes:
    """The bytes of a regular file under `root`; a link or `..` that leads out is refused.

    Raises:
        FetchError: NO_FILE or TOO_MANY_BYTES.
    """
    base = root.resolve()
    try:
        path = (base / relative).resolve(strict=True)
        if not path.is_relative_to(base) or not path.is_file():
            raise FetchError(Reason.NO_FILE)
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError, RuntimeError):  # missing, unreadable, a null byte, a link loop
        raise FetchError(Reason.NO_FILE) from None
    if len(data) > max_bytes:
        raise FetchError(Reason.TOO_MANY_BYTES)
    return data
