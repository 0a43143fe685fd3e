"""One URL to the bytes of its body, over HTTP, from servers that may be hostile.

aiohttp speaks HTTP; everything that it is asked is decided here. Everything is bounded: the time
of an attempt, the rate of a body, its bytes (also after unzipping), the headers (by aiohttp:
8 KiB a line), the redirects. Nothing but http and https is opened, and a connection goes to an
address that `pipeline.guard` has checked. Credentials in a URL are never sent.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar
from urllib.parse import SplitResult, urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDictProxy
from yarl import URL

from pipeline.address import by_policy, first, on_the_wire, parse
from pipeline.consent import ROBOTS_BYTES, Robots, opted_out, reserved
from pipeline.guard import FetchError, Resolver
from pipeline.hosts import WITHOUT_ANSWER, Host, Hosts
from pipeline.task import FetchLimits
from wit.schema import Reason

MAX_REDIRECTS = 5
LONGEST_WAIT_S = 30.0  # of a Retry-After header
RATE_AFTER_S = 5.0  # a body is held against the least rate from then on
BODIES_BYTES = 512 * 2**20  # of all bodies of a process at once
LARGE_BYTES = 4 * 2**20  # bodies of that size give up when there is no room
KEPT_HEADERS = ("Content-Type", "Last-Modified", "ETag", "X-Robots-Tag")

T = TypeVar("T")


@dataclass(frozen=True)
class Download:
    """A body, and where it came from.

    Attributes:
        body: as the server's file is, unzipped where it was zipped on the way.
        url: of the last request, after redirects.
        status: HTTP status.
        headers: those of `KEPT_HEADERS` that the answer had.
    """

    body: bytes
    url: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class _Job:
    """One URL on its way: the seconds that its attempt has left, and its slot."""

    slots: asyncio.Semaphore
    left: float = 0.0
    held: bool = False
    where: str | None = None

    async def take(self) -> None:
        await self.slots.acquire()
        self.held = True

    def give(self) -> None:
        if self.held:
            self.slots.release()
        self.held = False


class Client:
    """Downloads for one event loop: one TLS context, one pool of connections, one DNS cache.

    Use it as `async with Client(limits) as client`.
    """

    def __init__(self, limits: FetchLimits, resolver: Resolver | None = None) -> None:
        self._limits = limits
        self._resolver = resolver or Resolver(
            dict(limits.resolve), allow_loopback=limits.allow_loopback
        )
        self._token = limits.user_agent.partition("/")[0].strip().lower()
        self._hosts = Hosts(limits.host_connections, limits.host_rate)
        self._robots = Robots(self._token, self._robots_file)
        self._slots = asyncio.Semaphore(limits.connections)
        self._bytes = 0  # of the bodies that are being read

    async def __aenter__(self) -> Client:
        connector = aiohttp.TCPConnector(
            resolver=_Checked(self._resolver),
            use_dns_cache=False,  # the resolver has one, of checked addresses
            limit=0,  # the slots are the limit
            ssl=ssl.create_default_context(),
            keepalive_timeout=15,
            enable_cleanup_closed=True,
        )
        timeout = self._limits.timeout
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # unzipping is bounded here
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout),
            headers={
                "User-Agent": self._limits.user_agent,
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
            },
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        self._resolver.close()

    def later(self) -> None:
        """It is the end of the run: hosts that were down may be up again."""
        self._hosts.forgive()
        self._robots.forget_failures()

    @asynccontextmanager
    async def get(self, url: str, retries: int | None = None) -> AsyncIterator[Download]:
        """The body of a URL, tried again after failures that may pass.

        A download keeps its slot of `limits.connections` until the block ends, so that bodies
        can't pile up where they are used more slowly than they arrive.

        Raises:
            FetchError: with the reason of the last attempt.
        """
        job = _Job(self._slots)
        try:
            yield await self._attempts(
                url, job, self._limits.retries if retries is None else retries
            )
        except FetchError as error:
            error.where = job.where
            raise
        finally:
            job.give()

    async def _attempts(self, url: str, job: _Job, retries: int) -> Download:
        for attempt in range(retries + 1):
            try:
                job.left = self._limits.deadline
                return await self._follow(first(url, self._limits), job, self._image, robots=True)
            except FetchError as error:
                # a server that lets us wait once will do so again: that is for later
                if not error.passing or error.reason is Reason.TIMEOUT or attempt == retries:
                    raise
                wait = max(self._limits.backoff * 2**attempt, min(error.wait, LONGEST_WAIT_S))
                await asyncio.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _follow(
        self,
        parts: SplitResult,
        job: _Job,
        read: Callable[[aiohttp.ClientResponse, str], Awaitable[T]],
        robots: bool,
    ) -> T:
        """Ask for a URL and for what it redirects to, until `read` has an answer to read."""
        seen: set[str] = set()
        for _ in range(MAX_REDIRECTS + 1):
            job.where = where = parts.geturl()
            if where in seen:
                break
            seen.add(where)
            if robots and self._limits.robots:
                await self._robots.check(parts)
            answer = await self._request(parts, job, read)
            if not isinstance(answer, _Redirect):
                return answer
            target = parse(urljoin(where, answer.location))
            if target is None or target.scheme not in ("http", "https"):
                break
            parts = by_policy(target, self._limits)
        raise FetchError(Reason.REDIRECTS)

    async def _robots_file(self, parts: SplitResult) -> tuple[int, bytes]:
        job = _Job(self._slots, self._limits.deadline)
        try:
            return await self._follow(parts, job, self._rules, robots=False)
        finally:
            job.give()

    async def _request(
        self,
        parts: SplitResult,
        job: _Job,
        read: Callable[[aiohttp.ClientResponse, str], Awaitable[T]],
    ) -> T | _Redirect:
        """One request, with every failure of the network as a `FetchError`."""
        async with self._hosts[parts.hostname or ""] as host:
            await job.take()
            started = time.monotonic()
            try:
                async with asyncio.timeout(job.left):
                    answer = await self._exchange(parts, read)
            except FetchError as error:
                job.give()
                _learn(host, error)
                raise
            except (
                OSError,
                ValueError,
                aiohttp.ClientError,
            ) as found:  # TimeoutError is an OSError
                job.give()
                failure = _failure(found)
                _learn(host, failure)
                raise failure from None
            host.answered()
            job.left -= time.monotonic() - started
            if not isinstance(answer, Download):
                job.give()
            return answer

    async def _exchange(
        self,
        parts: SplitResult,
        read: Callable[[aiohttp.ClientResponse, str], Awaitable[T]],
    ) -> T | _Redirect:
        host = parts.hostname or ""
        # aiohttp doesn't resolve what looks like an address; also, a new answer of DNS counts
        await self._resolver.endpoints(host, parts.port or 80)
        url = URL(on_the_wire(parts), encoded=True)
        async with self._session.get(url, allow_redirects=False) as response:
            if 300 <= response.status < 400:
                location = response.headers.get("Location")
                if location is None:
                    raise FetchError(Reason.REDIRECTS, status=response.status)
                return _Redirect(location)
            return await read(response, parts.geturl())

    async def _image(self, response: aiohttp.ClientResponse, url: str) -> Download:
        status, headers = response.status, response.headers
        if status != 200:
            raise _refusal(status, headers.get("Retry-After"))
        if opted_out(headers.getall("X-Robots-Tag", ()), self._token) or reserved(headers):
            raise FetchError(Reason.OPTED_OUT, status=status)
        body = await self._body(response, self._limits.max_bytes)
        return Download(body, url, status, _kept(headers))

    async def _rules(self, response: aiohttp.ClientResponse, url: str) -> tuple[int, bytes]:
        if response.status != 200:
            return response.status, b""
        return 200, await self._body(response, 2 * ROBOTS_BYTES)

    async def _body(self, response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
        """The body, unzipped if the server zipped it unasked; at most `max_bytes` either way."""
        expected = response.content_length  # None when chunked or ended by the connection
        if expected is not None and expected > max_bytes:
            raise FetchError(Reason.TOO_MANY_BYTES, status=response.status)
        body, received, counted = bytearray(), 0, 0
        unzip = _decoder(response.headers.get("Content-Encoding", ""))
        started = time.monotonic()
        try:
            async for chunk in response.content.iter_any():
                received += len(chunk)
                try:
                    body += unzip.decompress(chunk, max_bytes + 1 - len(body)) if unzip else chunk
                except zlib.error:
                    raise FetchError(Reason.NOT_AN_IMAGE, status=response.status) from None
                if len(body) > max_bytes or received > max_bytes:
                    raise FetchError(Reason.TOO_MANY_BYTES, status=response.status)
                self._bytes, counted = self._bytes + len(body) - counted, len(body)
                if self._bytes > BODIES_BYTES and counted > LARGE_BYTES:
                    raise FetchError(Reason.TOO_MANY_BYTES, passing=True, status=response.status)
                seconds = time.monotonic() - started
                if seconds > RATE_AFTER_S and received < self._limits.min_rate * seconds:
                    raise TimeoutError("slower than the least rate")
        finally:
            self._bytes -= counted
        return bytes(body)


class _Checked(AbstractResolver):
    """What aiohttp asks for addresses: only checked ones come back."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=found.address,
                port=found.port,
                family=socket.AF_INET6 if ":" in found.address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found in await self._resolver.endpoints(host, port)
        ]

    async def close(self) -> None:
        """Nothing: the resolver belongs to the client."""


@dataclass(frozen=True)
class _Redirect:
    location: str


def _learn(host: Host, error: FetchError) -> None:
    """What a failure says of its host."""
    if error.status is None and error.reason in WITHOUT_ANSWER:
        host.failed(error)
    else:
        host.answered()
    if error.wait:
        host.pause(error.wait)


def _failure(error: Exception) -> FetchError:
    """What aiohttp and the network raise, in our words."""
    if isinstance(error, TimeoutError):
        return FetchError(Reason.TIMEOUT, passing=True)
    if isinstance(error, (ssl.SSLError, aiohttp.ClientSSLError)):
        return FetchError(Reason.TLS)
    if isinstance(error, (aiohttp.InvalidURL, ValueError)):  # a name that SNI can't hold
        return FetchError(Reason.NO_URL)
    if isinstance(error, aiohttp.ClientResponseError):  # headers without end, rubbish
        return FetchError(Reason.CONNECTION)
    return FetchError(Reason.CONNECTION, passing=True)


def _refusal(status: int, retry_after: str | None) -> FetchError:
    digits = retry_after and retry_after.isascii() and retry_after.isdigit()
    wait = float(retry_after) if retry_after and digits else 0.0
    if status == 403:
        return FetchError(Reason.HTTP_403, status=status)
    if status == 404:
        return FetchError(Reason.HTTP_404, status=status)
    if 400 <= status < 500:
        passing = status in (408, 425, 429)
        return FetchError(Reason.HTTP_4XX, passing, wait if passing else 0.0, status)
    if status >= 500:
        return FetchError(Reason.HTTP_5XX, True, wait, status)
    return FetchError(Reason.NOT_AN_IMAGE, status=status)  # 1xx and other 2xx promise no image


def _kept(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    return {name: ", ".join(headers.getall(name)) for name in KEPT_HEADERS if name in headers}


class _Decoder(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _decoder(encoding: str) -> _Decoder | None:
    if encoding.strip().lower() in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    return None  # any other encoding leaves bytes that are no image, and are reported as such
