"""URLs as the download takes them: which may be asked for, and what goes on the wire.

Parsers disagree about odd URLs, and attacks live on that; what is odd is refused here, before a
name is resolved or a port connected to.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, quote, urlsplit

from pipeline.guard import FetchError
from pipeline.task import FetchLimits
from wit.schema import Reason

WEB_PORTS = frozenset({80, 443})
# ports over 1023 where other services than the web listen (those that browsers block)
OTHER_SERVICES = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6379, 6566}
    | {6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080, 11211, 27017}
)
NEVER = re.compile(r"[\\\x00-\x1f\x7f]")  # in a URL: parsers disagree about it
PLAIN = re.compile(r"[\w/%:@!$&'()*+,;=~.\-?]*", re.ASCII)  # goes on the wire as it is


def first(url: str, limits: FetchLimits) -> SplitResult:
    """A URL of the list, in parts.

    Raises:
        FetchError: it can't be parsed, has another scheme, or the policy refuses it.
    """
    parts = parse(url)
    if parts is None:
        raise FetchError(Reason.NO_URL)
    if parts.scheme not in ("http", "https"):
        raise FetchError(Reason.URL_SCHEME)
    return by_policy(parts, limits)


def by_policy(parts: SplitResult, limits: FetchLimits) -> SplitResult:
    """A URL without its user name, unless its port or its user name is refused.

    Raises:
        FetchError: URL_REFUSED.
    """
    port = parts.port
    odd = port is not None and port not in WEB_PORTS and (port < 1024 or port in OTHER_SERVICES)
    if odd and not limits.any_port:
        raise FetchError(Reason.URL_REFUSED)
    _, user, address = parts.netloc.rpartition("@")
    if user and limits.userinfo == "refuse":
        raise FetchError(Reason.URL_REFUSED)
    return parts._replace(netloc=address)


def parse(url: str) -> SplitResult | None:
    """Split a URL; None unless it has a scheme, a host where it needs one, and a sane port.

    A host that is not ASCII is put into its IDNA form. Backslashes and control characters,
    which parsers disagree about, make a URL unusable.
    """
    url = url.strip()
    if NEVER.search(url):
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


def on_the_wire(parts: SplitResult) -> str:
    """The URL as it is sent: percent-encoded where it is not yet."""
    path, query = parts.path or "/", parts.query
    if not PLAIN.fullmatch(path):
        path = quote(path, safe="/%:@!$&'()*+,;=~-._")
    if query and not PLAIN.fullmatch(query):
        query = quote(query, safe="/?%:@!$&'()*+,;=~-._[]|")
    query = f"?{query}" if query else ""
    return f"{parts.scheme}://{parts.netloc.lower()}{path}{query}"
