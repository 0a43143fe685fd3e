"""What the sample is made of while it is written: rows with their truth, files, replies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from typing import Any

from PIL import Image

from pipeline.sample.server import Reply, site_key
from wit.schema import Reason
from wit.text import rank, uid

HOSTS = (
    "www.harbour-news.example",
    "img.old-forum.test",
    "media.print-shop.example",
    "uploads.travel-diary.test",
)


@dataclass(frozen=True)
class Row:
    """One row of the metadata and the truth about it.

    Attributes:
        kind: what the row is there for, e.g. `exif_rotated`; `good` for an ordinary pair.
        reason: why it must be dropped; None when it must be kept.
        clean_text: what the caption must be after cleaning, where that isn't `text` itself.
    """

    kind: str
    url: str | None
    text: str | None
    reason: Reason | None = None
    clean_text: str | None = None

    @property
    def rank(self) -> int:
        return rank(uid(self.url, self.text))


@dataclass(frozen=True)
class Pair:
    """A picture and the caption that truly describes it."""

    image: Image.Image
    text: str


@dataclass(repr=False)
class Book:
    """Collects rows, the files behind their URLs and the replies that misbehave.

    `pairs` gives a new picture and caption whenever a trap needs one.
    """

    pairs: Iterator[Pair]
    rows: list[Row] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)

    def url(self, kind: str, ext: str = "jpg") -> str:
        """A new URL on one of the traps' hosts."""
        n = len(self.rows)
        return f"http://{HOSTS[n % len(HOSTS)]}/pictures/{2009 + n % 11}/{kind}-{n:04d}.{ext}"

    def serve(self, url: str, body: bytes | None = None, reply: Reply | None = None) -> None:
        """Let the server answer `url` with `body`, in the way that `reply` says."""
        if body is not None:
            self.files[site_key(url)] = body
        if reply is not None:
            self.replies[site_key(url)] = reply

    def add(self, row: Row, body: bytes | None = None, reply: Reply | None = None) -> None:
        """Add a row and, where given, what stands behind its URL."""
        self.rows.append(row)
        if row.url is not None and (body is not None or reply is not None):
            self.serve(row.url, body, reply)

    def add_loser(self, winner: Row, variants: Iterable[Row], body: bytes | None = None) -> None:
        """Add the first of the variants that comes after `winner` in rank order.

        Of two duplicates the one of lower rank is kept, so this one must be dropped.
        """
        self.add(next(row for row in islice(variants, 10_000) if row.rank > winner.rank), body)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image file as bytes; `kind` is Pillow's name of the format."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
