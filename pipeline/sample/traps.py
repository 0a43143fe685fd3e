"""The rows of the sample around its good pairs: every way in which the web and people are odd.

Read this first: each function adds rows of several kinds to the book, and each row carries its
true verdict and reason. `row_traps` is about captions, duplicates and the cap, `web_traps` about
URLs and servers, `image_traps` about bytes.
"""

from __future__ import annotations

from pipeline.sample.book import Book
from pipeline.sample.image_traps import add_image_traps
from pipeline.sample.row_traps import (
    add_caption_traps,
    add_duplicates,
    add_over_cap,
    add_useless_captions,
)
from pipeline.sample.web_traps import add_web_traps


def add_traps(book: Book, copies: int, slow: bool) -> None:
    """Add every trap; the book already holds the good pairs, some of which get duplicates.

    Args:
        copies: rows for each way to repeat a good pair.
        slow: whether to take the traps that cost a build seconds of waiting.
    """
    add_duplicates(book, copies)
    add_caption_traps(book)
    add_web_traps(book, slow)
    add_image_traps(book)
    add_over_cap(book)
    add_useless_captions(book)
