"""Stage 10: metadata files of many kinds to one table, `10_ingest.sql`, cut into parts.

A file with a URL column is metadata of the web (LAION, DataComp, CC3M and CC12M, img2dataset's
own output); a file without one but with a column of image paths describes the folder it lies
in. A caption column may hold lists: each caption becomes a row. Large Parquet files are cut at
ranges of rows; other kinds can't be read from the middle and are turned into Parquet first.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from pipeline.context import Context
from pipeline.engine import connect, copy, sql_text
from pipeline.parts import Part, link_standing, make_all
from pipeline.runner import FORMAT
from pipeline.sources import Source, filesystem, mark, sources
from wit.config import fingerprint
from wit.errors import InputError
from wit.progress import Progress
from wit.schema import COLUMN_NAMES

_PEEK = 100  # lines of a headerless TSV that tell which column holds the URLs
_IMAGES = "images"  # a subfolder that path columns often leave out
_NOT_TEXT = ("BIGINT", "UBIGINT", "HUGEINT", "DOUBLE", "BOOLEAN")
_TEXTS = ("license", "page")
_NUMBERS = ("width", "height", "similarity", "nsfw", "watermark", "aesthetic")
_NO_ROOM = ("No space left", "Could not write", "File too large")
_NUMERIC = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER"),
    *("UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "VARCHAR"),
    '"NULL"',
)


@dataclass(frozen=True)
class Piece:
    """A range of rows of one file: what becomes one part.

    Attributes:
        source: the file, or the Parquet that was made of it.
        said: path of the user's file, for messages.
        rows: first row and the one after the last, of the file.
        first: number of the first caption.
        captions: how many there are.
    """

    source: Source
    said: str
    rows: tuple[int, int]
    first: int
    captions: int


def ingest(context: Context) -> None:
    """Every caption of every input file becomes a row, numbered from 0 in order.

    Raises:
        InputError: a file that can't be read, or without the columns it needs.
    """
    parts = []
    size = context.config.engine.partition_rows
    for number, piece in enumerate(_pieces(context, size)):
        target = context.out / f"{number:05}.parquet"
        context.parts[target.name] = fingerprint(_identity(context, piece))
        link_standing(context, target)
        parts.append(Part(target, write_piece, {"piece": piece}))
    make_all(parts, context.config.engine, context.progress)


def _identity(context: Context, piece: Piece) -> dict[str, Any]:
    path = Path(piece.said)
    content = context.digests[path] if path in context.digests else mark(piece.source)
    own = {key: value for key, value in asdict(piece).items() if key not in ("source", "said")}
    made_by = {"format": FORMAT, "sql": sql_text("10_ingest.sql")}
    return {**own, **made_by, "name": piece.source.name, "content": content}


def _pieces(context: Context, size: int) -> Iterator[Piece]:
    first = 0
    found = sources(context.config)
    for number, given in enumerate(found):
        source = _as_parquet(context, given, context.out / f".{number:05}.source.parquet")
        with connect(context.config.engine, context.out / ".spill") as con, reading(given):
            total = _rows(con, source)
            for low in range(0, max(total, 1), size):
                rows = (low, min(low + size, total))
                captions = _captions(con, source, rows)
                yield Piece(source, given.path, rows, first, captions)
                first += captions
        context.progress(number + 1, len(found), unit="files looked at")


def _as_parquet(context: Context, source: Source, target: Path) -> Source:
    """The file itself, or its columns of interest as Parquet beside the result."""
    if source.kind == "parquet":
        return source
    made = replace(source, path=str(target), kind="parquet", remote=False)
    if not target.exists():
        part = Part(target, write_columns, {"source": source})
        make_all([part], context.config.engine, context.progress)
    return made


def write_columns(
    con: duckdb.DuckDBPyConnection,
    given: Mapping[str, Any],
    target: Path,
    progress: Progress | None,
) -> None:
    """The columns of interest of a file that is no Parquet, under the names it gave them."""
    source: Source = given["source"]
    with reading(source):
        rows = read(con, source)
        url, text, _ = _columns(rows.columns, source)
        for name in (url, text):
            _check_type(rows, name, source, lists=name == text)
        wanted = {url, text, *_declared(rows, source).values()}
        columns = [duckdb.ColumnExpression(name) for name in rows.columns if name in wanted]
        rows.select(*columns).write_parquet(str(target), compression="zstd")


def write_piece(
    con: duckdb.DuckDBPyConnection,
    given: Mapping[str, Any],
    target: Path,
    progress: Progress | None,
) -> None:
    """One part of the table."""
    piece: Piece = given["piece"]
    with reading(replace(piece.source, path=piece.said)):
        local, prefix = _open(con, piece)
        params = {"first": piece.first, "name": piece.source.name, "local": local, "prefix": prefix}
        copy(con, "10_ingest.sql", params, target, progress)
        made = con.read_parquet(glob.escape(str(target))).count("*").fetchall()[0][0]
        if made != piece.captions:
            raise InputError(
                f"{piece.said}: {made} captions where {piece.captions} were: it changes while it is"
                " read: run the same command again when it is whole"
            )


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """What DuckDB says of a file that it can't read becomes one line; lack of room passes."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        if any(sign in str(error) for sign in _NO_ROOM):
            raise
        raise InputError(
            f"{source.path}: not readable as {source.kind}: {_line(error)}: {_mend(str(error))}"
        ) from None
    except (OSError, UnicodeError) as error:
        if not source.remote:
            raise
        raise InputError(f"{source.path}: {error}: check the address and the network") from None


def _mend(message: str) -> str:
    if "UTF8" in message or "UTF-8" in message or "unicode" in message:
        return "write its text as UTF-8"
    return "mend the file or download it again"


def _line(error: Exception) -> str:
    lines = [line.strip(" \t\"'") for line in str(error).strip().splitlines() if line.strip()]
    return " ".join(lines[:2])[:300].rstrip(".: ")


def _rows(con: duckdb.DuckDBPyConnection, source: Source) -> int:
    rows: int = read(con, source).count("*").fetchall()[0][0]
    return rows


def _captions(con: duckdb.DuckDBPyConnection, source: Source, rows: tuple[int, int]) -> int:
    """Captions of a range of rows: as many, unless a caption may be a list of them."""
    table = read(con, source)
    url, text, _ = _columns(table.columns, source)
    for name in (url, text):
        _check_type(table, name, source, lists=name == text)
    if not _is_list(table, text):
        return rows[1] - rows[0]
    column = duckdb.ColumnExpression(text)
    many = duckdb.FunctionExpression("len", column)
    one = duckdb.ConstantExpression(1)
    each = duckdb.FunctionExpression("greatest", duckdb.CoalesceOperator(many, one), one)
    total = _range(table, rows).select(each.alias("each")).sum("each").fetchall()[0][0]
    return int(total or 0)


def _range(table: duckdb.DuckDBPyRelation, rows: tuple[int, int]) -> duckdb.DuckDBPyRelation:
    return table.filter(f"file_row_number >= {rows[0]} AND file_row_number < {rows[1]}")


def _open(con: duckdb.DuckDBPyConnection, piece: Piece) -> tuple[bool, str]:
    """Make the view `source`; says whether its URLs are local paths, and what stands before."""
    rows = _range(read(con, piece.source), piece.rows)
    url, text, local = _columns(rows.columns, piece.source)
    if local and piece.source.remote:
        raise InputError(
            f"{piece.said}: it has no column of URLs, and its images are not on this machine:"
            " download the folder and give that"
        )
    for name in (url, text):
        _check_type(rows, name, piece.source, lists=name == text)
    value = duckdb.ColumnExpression(text)
    if not _is_list(rows, text):
        value = duckdb.FunctionExpression("list_value", value)
    extras = [
        duckdb.SQLExpression(_value(meaning, column)).alias(meaning)
        for meaning, column in _declared(rows, piece.source).items()
    ]
    view = rows.select(duckdb.ColumnExpression(url).alias("url"), value.alias("captions"), *extras)
    view.create_view("source")
    whole = read(con, piece.source)
    prefix = _prefix(whole, url, Path(piece.said).parent) if local else ""
    return local, prefix


def _value(meaning: str, column: str | None) -> str:
    """What is taken of a column: text that is no number is as good as nothing."""
    name = "NULL" if column is None else '"' + column.replace('"', '""') + '"'
    return f"CAST({name} AS VARCHAR)" if meaning in _TEXTS else f"TRY_CAST({name} AS DOUBLE)"


def _declared(rows: duckdb.DuckDBPyRelation, source: Source) -> dict[str, str | None]:
    """Meaning -> column of what a file declares beside URL and caption, or None. Of several
    columns with one meaning, numbers come before text: LAION's NSFW is a word, punsafe a number."""
    found: dict[str, str | None] = {}
    for meaning in (*_NUMBERS, *_TEXTS):
        names = _named(rows.columns, meaning)
        if meaning in _NUMBERS and names:
            names.sort(key=lambda name: _type(rows, name) == "VARCHAR")
            kind = _type(rows, names[0])
            if kind.split("(")[0] not in _NUMERIC:
                raise InputError(
                    f"{source.path}: column {names[0]} is {kind}: it must be a number, as"
                    f" {meaning}: convert or rename it"
                )
        found[meaning] = names[0] if names else None
    return found


def read(con: duckdb.DuckDBPyConnection, source: Source) -> duckdb.DuckDBPyRelation:
    """The rows of a metadata file, as it names its columns; of Parquet with `file_row_number`."""
    if source.remote:
        system = filesystem(source.path)
        names = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
        if not any(con.filesystem_is_registered(name) for name in names):
            con.register_filesystem(system)
    if source.kind == "parquet":
        return con.read_parquet(source.pattern, file_row_number=True)
    if source.kind == "csv":
        return con.read_csv(source.pattern, header=True, all_varchar=True)
    if source.kind == "tsv":
        return _read_tsv(con, source.pattern, source)
    return _read_json(con, source.pattern, source)


def _read_tsv(con: duckdb.DuckDBPyConnection, path: str, source: Source) -> duckdb.DuckDBPyRelation:
    """Tab-separated, quotes meaning nothing, as Google published CC3M and CC12M: with or without
    a header, caption first (CC3M) or URL first (CC12M)."""
    options: dict[str, Any] = {
        "delimiter": "\t",
        "quotechar": "",
        "escapechar": "",
        "all_varchar": True,
        "null_padding": True,
    }
    plain = con.read_csv(path, header=False, **options)
    head = plain.limit(_PEEK).fetchall()
    first = [str(cell).strip().lower() for cell in head[0]] if head else []
    known = {name for group in COLUMN_NAMES.values() for name in group}
    if known.intersection(first):
        return con.read_csv(path, header=True, **options)
    if len(first) < 2:
        raise InputError(f"{source.path}: one column only: expected caption<TAB>url")
    counts = [
        sum(str(row[column]).lower().startswith(("http://", "https://")) for row in head)
        for column in range(len(first))
    ]
    url = counts.index(max(counts))
    if not counts[url]:
        raise InputError(
            f"{source.path}: no column holds http URLs: expected caption<TAB>url, or a header"
            " with the column names url and caption"
        )
    text = 1 if url == 0 else 0
    return plain.select(
        duckdb.ColumnExpression(plain.columns[url]).alias("url"),
        duckdb.ColumnExpression(plain.columns[text]).alias("caption"),
    )


def _read_json(
    con: duckdb.DuckDBPyConnection, path: str, source: Source
) -> duckdb.DuckDBPyRelation:
    """JSON with the two columns as text, whatever their values look like (a date, a number in
    quotes); only a look at the file tells whether captions come as lists."""
    form = "newline_delimited" if source.kind == "jsonl" else "auto"
    seen = con.read_json(path, format=form, sample_size=-1)
    url, text, _ = _columns(seen.columns, source)
    for name in (url, text):
        kind = _type(seen, name)
        unwanted = kind.startswith(("STRUCT", "MAP", "JSON")) or (name == url and "[]" in kind)
        if kind in _NOT_TEXT or unwanted:
            raise _wrong_type(source, name, kind, lists=name == text)
    columns = {url: "VARCHAR", text: "VARCHAR[]" if _is_list(seen, text) else "VARCHAR"}
    columns |= {name: "VARCHAR" for name in _declared(seen, source).values() if name}
    return con.read_json(path, format=form, columns=columns)


def _columns(present: Sequence[str], source: Source) -> tuple[str, str, bool]:
    """The column of URLs or else of paths, that of captions, and whether it is paths."""
    url, path = _find(present, "url"), _find(present, "path")
    text = _find(present, "text")
    for found, meaning in ((url or path, "url"), (text, "text")):
        if found is None:
            wanted = COLUMN_NAMES[meaning] + (COLUMN_NAMES["path"] if meaning == "url" else ())
            raise InputError(
                f"{source.path}: no {meaning} column among {', '.join(present)}: rename one to"
                f" {meaning} (also understood: {', '.join(wanted[1:])})"
            )
    assert text is not None
    address = url or path
    assert address is not None
    return address, text, url is None


def _find(present: Sequence[str], meaning: str) -> str | None:
    return next(iter(_named(present, meaning)), None)


def _named(present: Sequence[str], meaning: str) -> list[str]:
    by_name = {name.strip().lower(): name for name in reversed(present)}
    return [by_name[name] for name in COLUMN_NAMES[meaning] if name in by_name]


def _type(rows: duckdb.DuckDBPyRelation, column: str) -> str:
    return str(rows.types[rows.columns.index(column)])


def _is_list(rows: duckdb.DuckDBPyRelation, column: str) -> bool:
    return _type(rows, column).endswith("[]")


def _check_type(rows: duckdb.DuckDBPyRelation, column: str, source: Source, lists: bool) -> None:
    kind = _type(rows, column)
    if kind != "VARCHAR" and not (lists and kind == "VARCHAR[]"):
        raise _wrong_type(source, column, kind, lists)


def _wrong_type(source: Source, column: str, kind: str, lists: bool) -> InputError:
    wanted = "text or a list of texts" if lists else "text"
    return InputError(f"{source.path}: column {column} is {kind}: it must be {wanted}")


def _prefix(rows: duckdb.DuckDBPyRelation, column: str, folder: Path) -> str:
    """`images/` when the first path is found only there."""
    head = rows.select(duckdb.ColumnExpression(column)).limit(1).fetchall()
    first = head[0][0] if head else None
    if first and not (folder / first).exists() and (folder / _IMAGES / first).exists():
        return f"{_IMAGES}/"
    return ""
