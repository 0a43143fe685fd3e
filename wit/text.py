"""Caption cleaning, and the word normaliser that queries and captions share.

Two captions or queries are compared by `words`: NFKC, casefolded, split at everything that is
not a letter, a mark or a digit. Change a rule and `NORMALISER_VERSION` must rise, because it
is part of the fingerprint of everything that was matched. Languages that write without spaces
come out as long runs, so queries match them only whole.
"""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata

import ftfy
import regex

NORMALISER_VERSION = 1

# Entities need their semicolon: "a&copy=1" is a piece of a URL, not a copyright sign.
_ENTITY = regex.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# Characters that show nothing: controls, soft hyphen, zero-width space, direction marks, BOM.
# The zero-width joiners stay: they carry meaning in Persian, Indic scripts and emoji.
_INVISIBLE = regex.compile(
    r"[\p{Cc}\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)
_SPACE = regex.compile(r"\s+")
_POSSESSIVE = regex.compile(r"(\p{L})['\u2019\u02bc]s\b")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
# The same two for ASCII, where Unicode has nothing to say.
_ASCII_POSSESSIVE = re.compile(r"([A-Za-z])'[sS]\b", re.ASCII)
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_FTFY = ftfy.TextFixerConfig(unescape_html=False, explain=False)


def clean_caption(text: str) -> str:
    """A caption as one line of plain text.

    HTML entities are unescaped (twice, since alt texts are often escaped twice), mojibake and
    curly quotes mended by ftfy, control characters and runs of white space collapsed.
    """
    for _ in range(2):
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    text = ftfy.fix_text(text, _FTFY)
    line: str = _SPACE.sub(" ", _INVISIBLE.sub("", _SPACE.sub(" ", text)))
    return line.strip()


def words(text: str) -> list[str]:
    """The words of a caption or a query, normalised.

    >>> words('"Dog" (dog), the DOG\\'s hot-dog')
    ['dog', 'dog', 'the', 'dog', 'hot', 'dog']
    """
    if text.isascii():
        if "'" in text:
            text = _ASCII_POSSESSIVE.sub(r"\1", text)
        return _ASCII_WORD.findall(text.lower())
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found: list[str] = _WORD.findall(_POSSESSIVE.sub(r"\1", text))
    return found


def uid(url: str | None, text: str | None) -> str:
    """The identity of a pair: md5 over URL and raw caption, 32 hex digits.

    The length of the URL in bytes stands in front, so that no two pairs run together.
    `10_ingest.sql` computes the same.
    """
    address = (url or "").encode()
    joined = str(len(address)).encode() + b":" + address + (text or "").encode()
    return hashlib.md5(joined, usedforsecurity=False).hexdigest()


def rank(pair_uid: str) -> int:
    """The first 64 bits of a uid: the order of choices among pairs, lowest first."""
    return int(pair_uid[:16], 16)
