"""Connections that can't be talked into private networks.

A host name is resolved once, every address it gives is checked, and the socket is opened to
the very address that was checked, so a name that changes its mind between check and use (DNS
rebinding) gains nothing. Numeric hosts in any spelling (decimal, octal, hexadecimal) pass
through the same resolution and the same check. Redirects come here again, one by one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from wit.schema import Reason

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")  # the only range that is in public use
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # its last 32 bits are an IPv4 address
# What `ipaddress` calls global, at least in some versions, and is not for us: IETF protocol
# assignments, 6to4 relays, documentation, and metadata servers of clouds.
NOT_FOR_US = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "2001::/23",
        "3fff::/20",
        "168.63.129.16/32",
        "169.254.169.254/32",
        "100.100.100.200/32",
    )
)
# RFC 6761: names that public DNS never holds; asking for them only tells others about us
RESERVED_NAMES = (".test", ".example", ".invalid", ".onion")

DNS_TTL_S, DNS_FAILURE_TTL_S = 300.0, 60.0
DNS_ENTRIES = 100_000
DNS_THREADS = 64


class FetchError(Exception):
    """Why a URL gave no image.

    Attributes:
        reason: from the closed set.
        passing: whether another attempt may go better.
        wait: seconds the server asked to wait before it.
        status: HTTP status of the last answer; None when there was none.
        where: URL of the last request.
    """

    def __init__(
        self, reason: Reason, passing: bool = False, wait: float = 0.0, status: int | None = None
    ) -> None:
        super().__init__(str(reason))
        self.reason, self.passing, self.wait, self.status = reason, passing, wait, status
        self.where: str | None = None


@dataclass(frozen=True)
class Endpoint:
    """A checked address and port to connect to."""

    address: str
    port: int


def is_public(address: Address) -> bool:
    """Whether an address is a public unicast one, also when IPv4 is wrapped in IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address not in GLOBAL_V6:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in NOT_FOR_US)
    )


Lookup = Callable[..., list[Any]]


class Resolver:
    """Host names to checked addresses, with a cache; for the tasks of one event loop.

    Args:
        mapping: host -> "address:port", in the manner of curl's --resolve; `*.example` covers
            every name under example. A mapped address may be private.
        lookup: what asks DNS; `socket.getaddrinfo` or, in tests, a stand-in.
        allow_loopback: whether an unmapped name may lead to this machine.
    """

    def __init__(
        self,
        mapping: Mapping[str, str],
        lookup: Lookup = socket.getaddrinfo,
        allow_loopback: bool = False,
    ) -> None:
        self._mapping = {host.lower(): _endpoint(value) for host, value in mapping.items()}
        self._lookup, self._allow_loopback = lookup, allow_loopback
        self._known: dict[str, tuple[float, list[str] | FetchError]] = {}
        self._asking: dict[str, asyncio.Future[list[str] | FetchError]] = {}
        self._pool = ThreadPoolExecutor(DNS_THREADS, thread_name_prefix="dns")

    async def endpoints(self, host: str, port: int) -> list[Endpoint]:
        """Where to connect for `host`, checked, in the order that DNS gave.

        Raises:
            FetchError: DNS when the name has no address; PRIVATE_ADDRESS when any of its
                addresses is not public.
        """
        host = host.lower().rstrip(".")
        mapped = self._mapped(host)
        if mapped is not None:
            return [mapped]
        addresses = await self._addresses(host)
        if not all(self._allowed(address) for address in addresses):
            raise FetchError(Reason.PRIVATE_ADDRESS)
        return [Endpoint(address, port) for address in addresses]

    def close(self) -> None:
        """Forget lookups that are under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _allowed(self, text: str) -> bool:
        address = ipaddress.ip_address(text.partition("%")[0])
        inner = getattr(address, "ipv4_mapped", None) or address
        return is_public(address) or (self._allow_loopback and inner.is_loopback)

    def _mapped(self, host: str) -> Endpoint | None:
        """The mapped endpoint of a host: its own entry, else the longest suffix's."""
        if host in self._mapping:
            return self._mapping[host]
        labels = host.split(".")
        suffixes = ("*." + ".".join(labels[i:]) for i in range(1, len(labels)))
        return next((self._mapping[s] for s in suffixes if s in self._mapping), None)

    async def _addresses(self, host: str) -> list[str]:
        if not host or host.endswith(RESERVED_NAMES):
            raise FetchError(Reason.DNS)
        expires, known = self._known.get(host, (0.0, []))
        if time.monotonic() >= expires:
            if host not in self._asking:  # one question, however many wait for its answer
                self._asking[host] = asyncio.ensure_future(self._ask(host))
            known = await asyncio.shield(self._asking[host])
        if isinstance(known, FetchError):
            raise FetchError(known.reason, known.passing)
        return known

    async def _ask(self, host: str) -> list[str] | FetchError:
        found: list[str] | FetchError
        try:
            found, lasts = await self._look_up(host), DNS_TTL_S
        except FetchError as error:
            found, lasts = error, DNS_FAILURE_TTL_S
        if len(self._known) >= DNS_ENTRIES:
            self._known.clear()
        self._known[host] = (time.monotonic() + lasts, found)
        del self._asking[host]
        return found

    async def _look_up(self, host: str) -> list[str]:
        # in a thread of its own: the C library takes no deadline
        loop = asyncio.get_running_loop()
        try:
            entries = await loop.run_in_executor(
                self._pool, lambda: self._lookup(host, None, type=socket.SOCK_STREAM)
            )
        except socket.gaierror as error:
            raise FetchError(Reason.DNS, passing=error.errno == socket.EAI_AGAIN) from None
        except ValueError:  # not a possible host name: too long a label, a null character
            raise FetchError(Reason.DNS) from None
        found = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        if not found:
            raise FetchError(Reason.DNS)
        return found


def _endpoint(value: str) -> Endpoint:
    address, _, port = value.rpartition(":")
    return Endpoint(address.strip("[]"), int(port))
