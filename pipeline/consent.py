"""Whether we may take an image: robots.txt, headers of the answer, and notes in the image itself.

robots.txt is read by Protego (RFC 9309). Headers: X-Robots-Tag as img2dataset honours it, and
TDM-Reservation of the W3C's TDM Reservation Protocol. In the image: the PLUS vocabulary for data
mining that IPTC metadata carries in XMP.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from urllib.parse import SplitResult

from protego import Protego

from pipeline.guard import FetchError
from wit.schema import Reason

OPT_OUT = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})
# directives of X-Robots-Tag that have a value after a colon, as a user agent's name has
VALUED = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})
PROHIBITED = b"DMI-PROHIBITED"
XMP_WITHIN = 256 * 1024  # XMP stands at the front of a file that says so
ROBOTS_BYTES = 512 * 1024  # RFC 9309: read at least 500 KiB
SITES = 50_000  # whose robots.txt is remembered


def opted_out(values: Iterable[str], token: str) -> bool:
    """Whether the values of X-Robots-Tag forbid the use to everybody or to us (`token`)."""
    for value in values:
        agent = ""
        for piece in value.lower().split(","):
            name, colon, rest = (part.strip() for part in piece.partition(":"))
            if colon and name in VALUED:
                continue
            if colon:
                agent, name = name, rest
            if agent in ("", "*", token) and name in OPT_OUT:
                return True
    return False


def reserved(headers: Mapping[str, str]) -> bool:
    """Whether the answer reserves text and data mining (TDM-Reservation: 1)."""
    return headers.get("TDM-Reservation", "").strip() == "1"


def marked(body: bytes) -> bool:
    """Whether the metadata of an image prohibits mining it (plus:DataMining)."""
    return PROHIBITED in body[:XMP_WITHIN]


class Robots:
    """robots.txt of every site, asked for once.

    Args:
        token: the name by which robots.txt knows us.
        read: gives status and body of a URL, following redirects.
    """

    def __init__(
        self, token: str, read: Callable[[SplitResult], Awaitable[tuple[int, bytes]]]
    ) -> None:
        self._token, self._read = token, read
        self._sites: OrderedDict[str, asyncio.Future[Protego | FetchError | None]] = OrderedDict()

    async def check(self, parts: SplitResult) -> None:
        """Pass when the site lets us have the URL.

        Raises:
            FetchError: ROBOTS_TXT when it doesn't, or when its robots.txt fails with 5xx; the
                reason for which the site didn't answer at all.
        """
        site = f"{parts.scheme}://{parts.netloc.lower()}"
        if site not in self._sites:
            self._sites[site] = asyncio.ensure_future(self._rules(parts))
            while len(self._sites) > SITES:
                self._sites.popitem(last=False)
        self._sites.move_to_end(site)
        rules = await asyncio.shield(self._sites[site])
        if isinstance(rules, FetchError):
            raise FetchError(rules.reason, rules.passing, status=rules.status)
        if rules is not None and not rules.can_fetch(parts.geturl(), self._token):
            raise FetchError(Reason.ROBOTS_TXT)

    def forget_failures(self) -> None:
        """Ask again where a site didn't answer: it is later now."""
        for site, found in list(self._sites.items()):
            if found.done() and isinstance(found.result(), FetchError):
                del self._sites[site]

    async def _rules(self, parts: SplitResult) -> Protego | FetchError | None:
        where = parts._replace(path="/robots.txt", query="", fragment="")
        try:
            status, body = await self._read(where)
        except FetchError as error:
            if error.reason in (Reason.REDIRECTS, Reason.TOO_MANY_BYTES, Reason.NOT_AN_IMAGE):
                return None  # nothing that could be read as rules: none are made
            return error
        if status >= 500:
            return FetchError(Reason.ROBOTS_TXT, passing=True, status=status)
        if status != 200 or not body.strip():
            return None
        return Protego.parse(body[:ROBOTS_BYTES].decode("utf-8", "replace"))
