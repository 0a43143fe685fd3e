"""Traps of the web: statuses, redirects, dead, slow and hostile servers, URLs that lead inside."""

from __future__ import annotations

from dataclasses import replace
from itertools import count, pairwise

from pipeline.sample.book import Book, Row, encode
from pipeline.sample.server import Reply
from wit.schema import Reason

HTML = (
    b"<!DOCTYPE html>\n<html><head><title>Image removed</title></head><body>Gone.</body></html>\n"
)

# kind, what the server does, reason; each stands three times in the sample
ANSWERS: list[tuple[str, Reply, Reason | None]] = [
    ("http_404", Reply(404), Reason.HTTP_404),
    ("http_403", Reply(403), Reason.HTTP_403),
    ("http_410", Reply(410), Reason.HTTP_4XX),
    ("http_451", Reply(451), Reason.HTTP_4XX),
    ("http_500", Reply(500), Reason.HTTP_5XX),
    ("http_503", Reply(503), Reason.HTTP_5XX),
    ("500_then_200", Reply(failures=1), None),
    ("slow_drip", Reply(mode="drip"), Reason.TIMEOUT),
    ("silent", Reply(mode="silent"), Reason.TIMEOUT),
    ("reset", Reply(mode="reset"), Reason.CONNECTION),
    ("cut", Reply(mode="cut"), Reason.CONNECTION),
    ("endless", Reply(mode="endless"), Reason.TOO_MANY_BYTES),
    (
        "huge_length",
        Reply(mode="cut", headers={"Content-Length": "30000000000"}),
        Reason.TOO_MANY_BYTES,
    ),
    # the type is sniffed from the bytes: what the header says decides nothing
    ("text_plain", Reply(headers={"Content-Type": "text/plain"}), None),
    ("octet_stream", Reply(headers={"Content-Type": "application/octet-stream"}), None),
    ("noai", Reply(headers={"X-Robots-Tag": "noai"}), Reason.OPTED_OUT),
    ("noimageai", Reply(headers={"X-Robots-Tag": "noarchive, NoImageAI"}), Reason.OPTED_OUT),
    ("robots_all", Reply(headers={"X-Robots-Tag": "all"}), None),
    ("robots_other", Reply(headers={"X-Robots-Tag": "otherbot: noindex, noai"}), None),
]
SLOW = ("slow_drip", "silent")

# kind, body, reason, each with a name that says image
BODIES: list[tuple[str, bytes, Reason]] = [
    ("html_as_jpeg", HTML, Reason.NOT_AN_IMAGE),
    ("json_as_jpeg", b'{"error": "not found", "code": 404}\n', Reason.NOT_AN_IMAGE),
    ("empty_body", b"", Reason.NOT_AN_IMAGE),
]

REDIRECTS: list[tuple[str, str, Reason]] = [
    ("redirect_file", "file:///etc/passwd", Reason.REDIRECTS),
    ("redirect_ftp", "ftp://www.harbour-news.example/picture.jpg", Reason.REDIRECTS),
    ("redirect_private", "http://127.0.0.1/picture.jpg", Reason.PRIVATE_ADDRESS),
    ("redirect_private", "http://169.254.169.254/latest/meta-data/", Reason.PRIVATE_ADDRESS),
    ("redirect_private", "http://[::1]/picture.jpg", Reason.PRIVATE_ADDRESS),
    ("redirect_private", "http://10.0.0.7/picture.jpg", Reason.PRIVATE_ADDRESS),
    ("redirect_dns", "http://www.never-registered.invalid/picture.jpg", Reason.DNS),
]

# URLs that need no server: nothing may be asked of them
URLS: list[tuple[str, str | None, Reason]] = [
    ("url_null", None, Reason.NO_URL),
    ("url_empty", "", Reason.NO_URL),
    ("url_space", "   ", Reason.NO_URL),
    ("url_no_host", "http://", Reason.NO_URL),
    ("url_bad_port", "http://www.harbour-news.example:99999/a.jpg", Reason.NO_URL),
    ("url_bad_bracket", "http://[::1/a.jpg", Reason.NO_URL),
    ("url_file", "file:///etc/passwd", Reason.URL_SCHEME),
    ("url_file", "file:///home/ada/pictures/holiday.jpg", Reason.URL_SCHEME),
    ("url_ftp", "ftp://www.harbour-news.example/picture.jpg", Reason.URL_SCHEME),
    ("url_data", "data:image/gif;base64,R0lGODlhAQABAAAAACw=", Reason.URL_SCHEME),
    ("url_javascript", "javascript:alert(1)", Reason.URL_SCHEME),
    ("private_url", "http://127.0.0.1/picture.jpg", Reason.PRIVATE_ADDRESS),
    ("private_url", "http://localhost/picture.jpg", Reason.PRIVATE_ADDRESS),
    ("private_url", "http://169.254.169.254/latest/meta-data/", Reason.PRIVATE_ADDRESS),
    ("private_url", "http://10.1.2.3/picture.jpg", Reason.PRIVATE_ADDRESS),
    ("private_url", "http://192.168.0.1/picture.jpg", Reason.PRIVATE_ADDRESS),
    ("private_url", "http://[::1]/picture.jpg", Reason.PRIVATE_ADDRESS),
    ("private_url", "http://[::ffff:127.0.0.1]/picture.jpg", Reason.PRIVATE_ADDRESS),
    ("private_url", "http://2130706433/picture.jpg", Reason.PRIVATE_ADDRESS),
    ("no_such_host", "http://www.never-registered.invalid/a.jpg", Reason.DNS),
    ("no_such_host", "http://cdn.never-registered.invalid/b.jpg", Reason.DNS),
    # the sample's server speaks plain HTTP only
    ("no_tls", "https://www.harbour-news.example/secure/a.jpg", Reason.TLS),
    ("no_tls", "https://img.old-forum.test/secure/b.jpg", Reason.TLS),
]


def add_web_traps(book: Book, slow: bool) -> None:
    """Add every row of the tables above; `slow` says whether to take those that cost seconds."""
    for kind, reply, reason in ANSWERS:
        if slow or kind not in SLOW:
            for _ in range(3):
                pair = next(book.pairs)
                row = Row(kind, book.url(kind), pair.text, reason)
                if kind in SLOW:
                    row = _early(row)
                book.add(row, encode(pair.image, "JPEG", quality=85), reply)
    for kind, body, reason in BODIES:
        for _ in range(3):
            book.add(Row(kind, book.url(kind), next(book.pairs).text, reason), body)
    for kind, target, reason in REDIRECTS:
        row = Row(kind, book.url(kind), next(book.pairs).text, reason)
        book.add(row, reply=_to(target))
    for kind, url, reason in URLS:
        book.add(Row(kind, url, next(book.pairs).text, reason))
    for n in range(3):
        _add_missing(book)
        _add_odd_path(book, n)
        _add_loops(book, n)
        _add_moved(book, n)


def _early(row: Row) -> Row:
    """The row with a URL of low rank: downloads go in rank order, so the slow ones meet there.

    They then wait at the same time, where spread over the whole list they would wait in turn.
    """
    urls = (str(row.url).replace(".jpg", f"-{n}.jpg") for n in count())
    return next(new for url in urls if (new := replace(row, url=url)).rank < 2**64 // 40)


def _to(url: str, status: int = 302) -> Reply:
    return Reply(status, headers={"Location": url})


def _add_missing(book: Book) -> None:
    kind = "missing_file"
    book.add(Row(kind, book.url(kind), next(book.pairs).text, Reason.HTTP_404))


def _add_odd_path(book: Book, n: int) -> None:
    """Spaces and accents in a path, as people write them: the client must quote them."""
    pair = next(book.pairs)
    path = ("my holiday/blue sky.jpg", "été/cœur.jpg", "shapes%20and%20more/a.jpg")[n]
    row = Row("odd_path", f"http://uploads.travel-diary.test/{path}", pair.text)
    book.add(row, encode(pair.image, "JPEG", quality=88))


def _add_loops(book: Book, n: int) -> None:
    """A page that redirects to itself, two that point at each other, a chain without end."""
    kind = ("redirect_self", "redirect_pair", "redirect_chain")[n]
    url = book.url(kind)
    hops = [url, *(url.replace(".jpg", f"-{k}.jpg") for k in range((0, 1, 30)[n])), url]
    for here, there in pairwise(hops):
        book.serve(here, reply=_to(there, (301, 302, 307)[n]))
    book.add(Row(kind, url, next(book.pairs).text, Reason.REDIRECTS))


def _add_moved(book: Book, n: int) -> None:
    """A redirect that works: to another host, to a relative path, over two steps."""
    pair = next(book.pairs)
    url = book.url("moved")
    goal = f"http://archive.harbour-news.example/moved/{n}.jpg"
    if n == 0:
        book.serve(url, reply=_to(goal, 301))
    elif n == 1:
        goal = url.replace("moved-", "moved-to-")
        book.serve(url, reply=_to("../" + "/".join(goal.split("/")[-2:]), 307))
    else:
        book.serve(url, reply=_to(f"{url}.old", 308))
        book.serve(f"{url}.old", reply=_to(goal))
    book.serve(goal, encode(pair.image, "JPEG", quality=85))
    book.add(Row("moved", url, pair.text))
