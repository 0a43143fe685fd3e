"""Where metadata come from: files, folders and URLs, found and named.

A local path is read by DuckDB itself; everything else goes through fsspec, whose package for
the protocol (s3fs, gcsfs, ...) the user installs.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec

from pipeline.config import ShardsConfig
from wit.errors import InputError

# A folder is searched for these; .json only when it is named, since folders hold other JSON.
IN_FOLDERS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
_KINDS = {**{suffix: suffix[1:] for suffix in IN_FOLDERS}, ".json": "json", ".ndjson": "jsonl"}
_COMPRESSED = (".gz", ".zst")
_MARKS = ("size", "ETag", "etag", "mtime", "created", "LastModified", "last_modified", "updated")


@dataclass(frozen=True)
class Source:
    """One metadata file.

    Attributes:
        path: absolute path, or URL.
        name: what the table's `source` column says.
        kind: parquet, csv, tsv, json or jsonl.
        remote: whether it is read through fsspec.
    """

    path: str
    name: str
    kind: str
    remote: bool = False

    @property
    def pattern(self) -> str:
        """The path as DuckDB takes it: brackets and stars mean themselves."""
        return glob.escape(self.path)

    @property
    def folder(self) -> Path:
        """Where the paths of local images start."""
        return Path(self.path).parent


def sources(config: ShardsConfig) -> list[Source]:
    """The metadata files that --input names, folders expanded in order of name.

    Raises:
        InputError: a path that is missing, or holds nothing that can be read.
    """
    found: list[tuple[str, bool]] = []
    for given in map(str, config.input):
        if is_remote(given):
            found += [(url, True) for url in _expand_url(given)]
        else:
            found += [(str(path), False) for path in _expand(Path(given.removeprefix("file://")))]
    if not found:
        raise InputError("no input: give --input FILE_OR_FOLDER")
    paths = [path for path, _ in found]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise InputError(f"{twice}: given twice in --input: name it once")
    local = [Path(path).parent for path, remote in found if not remote]
    top = Path(os.path.commonpath(local)) if local else Path()
    return [
        Source(path, path if remote else _below(path, top), _kind(path), remote)
        for path, remote in found
    ]


def local_files(config: ShardsConfig) -> list[Path]:
    """The files whose content the table depends on."""
    return [Path(source.path) for source in sources(config) if not source.remote]


def names(config: ShardsConfig) -> dict[str, Any]:
    """What else the table depends on: the name of each file, what tells that a remote one has
    changed, and the size of a part."""
    found = sources(config)
    return {
        "names": [source.name for source in found],
        "remote": {source.path: mark(source) for source in found if source.remote},
        "partition_rows": config.engine.partition_rows,
    }


def roots(config: ShardsConfig) -> dict[str, Path]:
    """source name -> the folder that the paths of its local images start from."""
    return {source.name: source.folder for source in sources(config) if not source.remote}


def mark(source: Source) -> dict[str, str]:
    """Size, tag and time of a remote file, as far as its store knows them."""
    system, path = url_to_fs(source.path)
    known = system.info(path)
    return {name: str(known[name]) for name in _MARKS if known.get(name) is not None}


def filesystem(url: str) -> Any:
    """The fsspec file system of a URL, for DuckDB to read through."""
    system = url_to_fs(url)[0]
    if "http" in system.protocol:  # DuckDB asks for a time, which fsspec doesn't know of the web
        system.modified = lambda path: datetime.fromtimestamp(0, UTC)
    return system


def is_remote(given: str) -> bool:
    return "://" in given and not given.startswith("file://")


def url_to_fs(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        InputError: fsspec or the package it needs doesn't know the protocol.
    """
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{url}: fsspec can't read this: {str(error).splitlines()[0]}: install the package it"
            " names, or download the file"
        ) from None
    return system, path


def _expand_url(given: str) -> list[str]:
    system, path = url_to_fs(given)
    try:
        if glob.has_magic(path):
            found = sorted(system.glob(path))
        elif system.isdir(path):
            found = _in_folder(entry["name"] for entry in system.ls(path, detail=True))
        else:
            found = [path] if system.exists(path) else []
    except (OSError, ValueError) as error:
        raise InputError(f"{given}: {error}: check the address and your rights") from None
    if not found:
        raise InputError(f"{given}: no metadata there: check --input")
    return [str(system.unstrip_protocol(name)) for name in found]


def _in_folder(files: Iterable[str]) -> list[str]:
    return sorted(file for file in files if _suffix(file) in IN_FOLDERS)


def _expand(given: Path) -> list[Path]:
    path = given.absolute()
    if path.is_dir():
        found = _in_folder(str(file) for file in path.iterdir())
        if not found:
            raise InputError(
                f"{given}: no metadata in this folder: put a .parquet, .csv, .tsv or .jsonl with"
                " url (or image) and caption columns there"
            )
        return [Path(file) for file in found]
    if not path.exists():
        raise InputError(f"{given}: no such file or folder: check --input")
    _kind(str(path))
    return [path]


def _below(path: str, top: Path) -> str:
    return Path(path).relative_to(top).as_posix()


def _suffix(path: str) -> str:
    name = Path(path.split("?")[0]).name.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return Path(name).suffix


def _kind(path: str) -> str:
    kind = _KINDS.get(_suffix(path))
    if kind is None:
        raise InputError(f"{path}: unknown kind of file: use {', '.join(_KINDS)}")
    return kind
