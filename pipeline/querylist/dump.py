"""Running text from the files people have: pages-articles .xml.bz2, .txt, .parquet; streamed.

A dump of Wikipedia is worked on in parts of the compressed file. The multistream kind is many bz2
streams one after the other; a part takes the streams that begin in it, so parts need no index. The
other kind is one stream, which the first part takes. The XML is read by its fixed form: text is
escaped, so <page> and </page> are nothing but the ends of a page.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.querylist.lines import Tally, opened
from pipeline.querylist.wikitext import plain_lines
from wit.errors import InputError
from wit.schema import COLUMN_NAMES

PART = 64 << 20  # bytes of a compressed dump that one task takes
_READ = 1 << 20  # bytes of a file at a time
_UNPACKED = 8 << 20  # bytes that they may unpack to at a time
_STREAM = re.compile(rb"BZh[1-9]1AY&SY")  # the head of a bz2 stream and of its first block
_HEAD = 10  # bytes of it
_LONGEST_PAGE = 64 << 20  # bytes; MediaWiki itself allows 2 MiB
_SHOWN = 200  # bytes of a malformed page
_ARTICLE = re.compile(rb"<ns>0</ns>")
_REDIRECT = re.compile(rb"<redirect[ />]")
_ANY_TEXT = re.compile(rb"<text[ />]")  # of a page that was emptied too
_TEXT = re.compile(rb"<text\b[^>]*>(.*?)</text>", re.DOTALL)


@dataclass(frozen=True)
class Part:
    """A piece of a text file: the bytes from `start` to `end`, or all of it."""

    path: Path
    number: int
    start: int
    end: int


def parts(path: Path) -> list[Part]:
    """The tasks that a file of text makes.

    Raises:
        InputError: an unknown kind of file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file: check --text")
    size = path.stat().st_size
    if not path.name.endswith((".xml", ".xml.bz2", ".txt", ".txt.gz", ".txt.bz2", ".parquet")):
        raise InputError(f"{path}: unknown kind of text: use .xml.bz2, .xml, .txt(.gz), .parquet")
    step = PART if path.name.endswith(".xml.bz2") else max(size, 1)
    starts = range(0, max(size, 1), step)
    return [Part(path, n, at, min(at + step, size)) for n, at in enumerate(starts)]


def lines(part: Part, tally: Tally) -> Iterator[str]:
    """The lines of text of a part, without markup. What is not UTF-8 is counted, and read without
    the bytes that are none; so is an article without text, and a row that is null.

    Raises:
        InputError: a damaged or truncated file, or one that is something else.
    """
    path = part.path
    try:
        if path.suffix == ".parquet":
            yield from _parquet_lines(path, tally)
        elif ".txt" in path.suffixes[-2:]:
            with opened(path) as file:
                yield from _text_lines(file, tally)
        elif path.suffix == ".xml":
            with path.open("rb") as file:
                yield from _articles(iter(lambda: file.read(_READ), b""), path, tally)
        else:
            with path.open("rb") as file:
                yield from _articles(_streams(file, part), path, tally)
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or damaged ({error}): download it again") from None


def _text_lines(file: IO[bytes], tally: Tally) -> Iterator[str]:
    number = 1
    for piece in _pieces(file):
        text = piece.decode("utf-8", "replace").strip()
        if text:
            tally.add(piece, _is_utf8(piece), number)
            yield text
        number += piece.endswith(b"\n")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file; one that is very long, as of a text without any, in parts of it."""
    held = b""
    while read := file.readline(_READ):
        piece, whole = held + read, read.endswith(b"\n") or len(read) < _READ
        end = len(piece) if whole else piece.rfind(b" ") + 1 or len(piece)
        held = piece[end:]
        yield piece[:end]
    yield held


def _parquet_lines(path: Path, tally: Tally) -> Iterator[str]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: not readable as Parquet: {first}: write it again") from None
    by_name = {name.lower(): name for name in reversed(file.schema_arrow.names)}
    column = next((by_name[name] for name in COLUMN_NAMES["text"] if name in by_name), None)
    if column is None:
        present = ", ".join(file.schema_arrow.names)
        raise InputError(f"{path}: no text column among {present}: rename one to text")
    for batch in file.iter_batches(columns=[column], batch_size=1024):
        for value in batch.column(0).to_pylist():
            for text in value if isinstance(value, list) else [value]:
                tally.add("null", text is not None, tally.lines + 1)
                yield from (text or "").splitlines()


def _streams(file: IO[bytes], part: Part) -> Iterator[bytes]:
    """The content of the bz2 streams that begin in a part."""
    at = _next_stream(file, part.start)
    if at is None and part.start == 0:
        raise InputError(f"{part.path}: not a bz2 file: check --text")
    while at is not None and at < part.end:
        file.seek(at)
        unpack, read = bz2.BZ2Decompressor(), at
        while not unpack.eof:
            data = file.read(_READ) if unpack.needs_input else b""
            read += len(data)
            if not data and unpack.needs_input:
                raise InputError(f"{part.path}: truncated at byte {read:,}: download it again")
            try:
                yield unpack.decompress(data, _UNPACKED)
            except OSError as error:
                raise InputError(
                    f"{part.path}: damaged before byte {read:,} ({error}): download it again"
                ) from None
        at = _next_stream(file, read - len(unpack.unused_data))


def _next_stream(file: IO[bytes], start: int) -> int | None:
    """Where the first bz2 stream from `start` on begins."""
    file.seek(start)
    held, at = b"", start
    while data := file.read(_READ):
        held += data
        found = _STREAM.search(held)
        if found:
            return at + found.start()
        at += max(0, len(held) - _HEAD)
        held = held[-_HEAD:]
    return None


def _articles(chunks: Iterator[bytes], path: Path, tally: Tally) -> Iterator[str]:
    """The text of the articles: pages of namespace 0 that lead nowhere else."""
    held = b""
    for chunk in chunks:
        held += chunk
        *whole, held = held.split(b"</page>")
        if len(held) > _LONGEST_PAGE:
            raise InputError(f"{path}: no page ends in {len(held):,} bytes: no pages-articles dump")
        for page in whole:
            if not _ARTICLE.search(page) or _REDIRECT.search(page):
                continue
            found = _TEXT.search(page)
            good = bool(_ANY_TEXT.search(page)) and _is_utf8(page)
            tally.add(page.strip()[:_SHOWN], good)
            if found:
                yield from plain_lines(html.unescape(found[1].decode("utf-8", "replace")))
    if b"<page>" in held:
        raise InputError(f"{path}: ends within a page: download it again")


def counted(con: duckdb.DuckDBPyConnection, path: Path) -> duckdb.DuckDBPyRelation:
    """A table of n-grams that somebody else counted, as `ngram`, `count`.

    Raises:
        InputError: unreadable, or without the two columns.
    """
    name = glob.escape(str(path))
    try:
        if path.suffix == ".parquet":
            rows = con.read_parquet(name)
        elif path.suffix in (".csv", ".tsv"):
            rows = con.read_csv(name, header=True)
        else:
            raise InputError(f"{path}: counted n-grams are .csv, .tsv or .parquet")
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: not readable: {first}: write it again") from None
    wanted = {"ngram": ("ngram", "word", "text", "query"), "count": ("count", "freq", "frequency")}
    by_name = {column.lower(): column for column in reversed(rows.columns)}
    chosen = []
    for meaning, names in wanted.items():
        column = next((by_name[n] for n in names if n in by_name), None)
        if column is None:
            raise InputError(
                f"{path}: no {meaning} column among {', '.join(rows.columns)}: rename one to"
                f" {meaning}"
            )
        kind = "VARCHAR" if meaning == "ngram" else "BIGINT"
        chosen.append(duckdb.ColumnExpression(column).cast(kind).alias(meaning))
    return rows.select(*chosen)
