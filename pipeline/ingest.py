"""Metadata files of many kinds to one table: row, uid, rank, source, local, url, raw_text.

A file with a URL column is metadata of the web (LAION, DataComp, CC3M and CC12M, img2dataset's
own output); a file without one but with a column of image paths describes the folder it lies
in. A caption column may hold lists: each caption becomes a row.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from pipeline.config import ShardsConfig
from pipeline.context import Context
from pipeline.engine import copy
from wit.errors import InputError
from wit.schema import COLUMN_NAMES

# A folder is searched for these; .json only when it is named, since folders hold other JSON.
_IN_FOLDERS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
_KINDS = {**{suffix: suffix[1:] for suffix in _IN_FOLDERS}, ".json": "json", ".ndjson": "jsonl"}
_COMPRESSED = (".gz", ".zst")
_PEEK = 100  # lines of a headerless TSV that tell which column holds the URLs
_IMAGES = "images"  # a subfolder that path columns often leave out
_NOT_TEXT = ("BIGINT", "UBIGINT", "HUGEINT", "DOUBLE", "BOOLEAN")


@dataclass(frozen=True)
class Source:
    """One metadata file; `name` is what the table's `source` column says."""

    path: Path
    name: str
    kind: str


def sources(config: ShardsConfig) -> list[Source]:
    """The metadata files that --input names, folders expanded in order of name.

    Raises:
        InputError: a path that is missing, or holds nothing that can be read.
    """
    paths = [file for given in config.input for file in _expand(given)]
    if not paths:
        raise InputError("no input: give --input FILE_OR_FOLDER")
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise InputError(f"{twice}: given twice in --input: name it once")
    top = os.path.commonpath([path.parent for path in paths])
    return [Source(path, path.relative_to(top).as_posix(), _kind(path)) for path in paths]


def files(config: ShardsConfig) -> list[Path]:
    """The files whose content the table depends on."""
    return [source.path for source in sources(config)]


def names(config: ShardsConfig) -> dict[str, Any]:
    """What else the table depends on: the name of each file."""
    return {"names": [source.name for source in sources(config)]}


def roots(config: ShardsConfig) -> dict[str, Path]:
    """source name -> the folder that the paths of its local images start from."""
    return {source.name: source.path.parent for source in sources(config)}


def _expand(given: Path) -> list[Path]:
    path = given.absolute()
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if _suffix(file) in _IN_FOLDERS)
        if not found:
            raise InputError(
                f"{given}: no metadata in this folder: put a .parquet, .csv, .tsv or .jsonl with"
                " url (or image) and caption columns there"
            )
        return found
    if not path.exists():
        raise InputError(f"{given}: no such file or folder: check --input")
    _kind(path)
    return [path]


def _suffix(path: Path) -> str:
    name = path.name.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return Path(name).suffix


def _kind(path: Path) -> str:
    kind = _KINDS.get(_suffix(path))
    if kind is None:
        raise InputError(f"{path}: unknown kind of file: use {', '.join(_KINDS)}")
    return kind


def ingest(context: Context) -> None:
    """Stage 10: every caption of every input file becomes a row, numbered from 0 in order."""
    found, first = sources(context.config), 0
    for number, source in enumerate(found):
        target = context.out / f"{number:05}.parquet"
        with context.connect() as con:
            try:
                local, prefix = _open(con, source)
                params = {"first": first, "name": source.name, "local": local, "prefix": prefix}
                copy(con, "10_ingest.sql", params, target, context.progress)
                first += _rows(con, target)
            except duckdb.OutOfMemoryException:
                raise
            except duckdb.Error as error:
                if "No space left" in str(error):
                    raise
                raise InputError(
                    f"{source.path}: not readable as {source.kind}: {_line(error)}: mend the file"
                    " or download it again"
                ) from None
        context.progress(number + 1, len(found), unit="files")


def _rows(con: duckdb.DuckDBPyConnection, table: Path) -> int:
    rows: int = con.read_parquet(glob.escape(str(table))).count("*").fetchall()[0][0]
    return rows


def _line(error: Exception) -> str:
    lines = [line.strip(" \t\"'") for line in str(error).strip().splitlines() if line.strip()]
    return " ".join(lines[:2])[:300].rstrip(".: ")


def _open(con: duckdb.DuckDBPyConnection, source: Source) -> tuple[bool, str]:
    """Make the view `source`; says whether its URLs are local paths, and what stands before."""
    rows = _read(con, source)
    url, text, local = _columns(rows.columns, source)
    for name in (url, text):
        _check_type(rows, name, source, lists=name == text)
    value = duckdb.ColumnExpression(text)
    if not _is_list(rows, text):
        value = duckdb.FunctionExpression("list_value", value)
    rows.select(duckdb.ColumnExpression(url).alias("url"), value.alias("captions")).create_view(
        "source"
    )
    prefix = _prefix(rows, url, source.path.parent) if local else ""
    return local, prefix


def _read(con: duckdb.DuckDBPyConnection, source: Source) -> duckdb.DuckDBPyRelation:
    path = glob.escape(str(source.path))
    if source.kind == "parquet":
        return con.read_parquet(path)
    if source.kind == "csv":
        return con.read_csv(path, header=True, all_varchar=True)
    if source.kind == "tsv":
        return _read_tsv(con, path, source)
    return _read_json(con, path, source)


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
        kind = str(seen.types[seen.columns.index(name)])
        unwanted = kind.startswith(("STRUCT", "MAP", "JSON")) or (name == url and "[]" in kind)
        if kind in _NOT_TEXT or unwanted:
            raise _wrong_type(source, name, kind, lists=name == text)
    columns = {url: "VARCHAR", text: "VARCHAR[]" if _is_list(seen, text) else "VARCHAR"}
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
    by_name = {name.strip().lower(): name for name in reversed(present)}
    return next((by_name[name] for name in COLUMN_NAMES[meaning] if name in by_name), None)


def _is_list(rows: duckdb.DuckDBPyRelation, column: str) -> bool:
    return str(rows.types[rows.columns.index(column)]).endswith("[]")


def _check_type(rows: duckdb.DuckDBPyRelation, column: str, source: Source, lists: bool) -> None:
    kind = str(rows.types[rows.columns.index(column)])
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
