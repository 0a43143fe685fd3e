"""Where shards lie: a folder, or anything fsspec reads (http, s3, gs, memory, ...).

A source gives the rows of its index and bytes of its shards. Of a remote one, shards that fit into
the local cache together are fetched whole, once; where they don't, each sample is a request for
its own range, for a whole shard for one sample would be thousands of times too much.
"""

from __future__ import annotations

import importlib
import re
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from train.cache import ShardCache
from wit import shard
from wit.config import fingerprint
from wit.errors import CorpusError, InputError, MissingExtra
from wit.index_cache import OnBad, cache_folder, index_file

TRIES, PAUSE = 4, 0.5  # of a request; seconds, doubled each time
PIECE = 1 << 22  # bytes of a shard in memory while it is fetched
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")

T = TypeVar("T")


class Source(Protocol):
    """One corpus, or one folder of tars.

    Attributes:
        remote: whether reading waits for a network.
    """

    remote: bool

    def index(self, on_bad: OnBad) -> tuple[list[Any], Callable[[], Iterable[pa.RecordBatch]]]:
        """What identifies the index, and what gives its rows."""

    def use(self, files: list[str], ends: list[int]) -> None:
        """Say which shards the rows name, and how many bytes of each are needed, once."""

    def where(self, file: int) -> str:
        """Path or URL of a shard by its number."""

    def read(self, file: int, offset: int, size: int) -> bytes:
        """Raises CorpusError: the shard is gone, cut off, or can't be reached."""


def open_source(name: str, cache: Path | None, cache_bytes: int) -> Source:
    """The source with this path or URL."""
    if "://" not in name:
        return Folder(Path(name))
    return Remote(name, cache or cache_folder().with_name("shards"), cache_bytes)


class Folder:
    """Shards of this machine's file system."""

    remote = False

    def __init__(self, path: Path) -> None:
        self._path, self._shards = path, shard.shards_folder(path)

    def index(self, on_bad: OnBad) -> tuple[list[Any], Callable[[], Iterable[pa.RecordBatch]]]:
        found = shard.find_index(self._path, on_bad)
        if isinstance(found, Path):
            about = found.stat()
            identity = [str(found.resolve()), about.st_size, about.st_mtime_ns]
        else:
            identity = [secrets.token_hex()]
        return identity, lambda: shard.index_batches(found)

    def use(self, files: list[str], ends: list[int]) -> None:
        self._files = [self._shards / name for name in files]
        for path in self._files:
            if not path.is_file():
                raise CorpusError(f"{path}: the index names this shard, but it is gone")

    def where(self, file: int) -> str:
        return str(self._files[file])

    def read(self, file: int, offset: int, size: int) -> bytes:
        try:
            with self._files[file].open("rb", buffering=0) as opened:
                return shard.read_member(opened, offset, size)
        except FileNotFoundError:
            raise CorpusError(f"{self.where(file)}: this shard is gone; build it again") from None


class Remote:
    """Shards behind a URL: of a corpus or folder, or of tars, `https://host/{00000..00041}.tar`."""

    remote = True

    def __init__(self, url: str, cache: Path, cache_bytes: int) -> None:
        try:
            fsspec = importlib.import_module("fsspec")
            self._fs, _ = fsspec.core.url_to_fs(url)
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), "remote") from None
        except ImportError as error:  # fsspec's way to name the package of a protocol
            raise InputError(f"{url}: {error}") from None
        except ValueError as error:
            raise InputError(f"{url}: {error}; check the URL") from None
        self._url, self._bytes = url.rstrip("/"), cache_bytes
        self._cache = ShardCache(cache, cache_bytes)
        self._failures: tuple[type[Exception], ...] = (OSError, TimeoutError)
        with suppress(ModuleNotFoundError):
            self._failures += (importlib.import_module("aiohttp").ClientError,)

    def index(self, on_bad: OnBad) -> tuple[list[Any], Callable[[], Iterable[pa.RecordBatch]]]:
        if not self._url.endswith(".tar"):
            for at in ("/shards", ""):
                stored = f"{self._url}{at}/index.parquet"
                if self._try(stored, partial(self._fs.exists, stored)):
                    self._base = self._url + at
                    version = self._version(stored)
                    path = self._cache.local(f"{version}/index.parquet", self._fetch(stored))
                    return [version], partial(shard.index_batches, path)
        tars = self._tars()
        self._base = tars[0].rpartition("/")[0]
        name = fingerprint([self._version(tar) for tar in tars])

        def scan(tar: Path, on_bad: OnBad) -> pa.Table:
            url = f"{self._base}/{tar.name}"
            return shard.index_shard(self._cache.local(url, self._fetch(url)), on_bad)

        found = index_file([Path(tar.rpartition("/")[2]) for tar in tars], scan, on_bad, name)
        return [name], partial(shard.index_batches, found)

    def use(self, files: list[str], ends: list[int]) -> None:
        self._files = [f"{self._base}/{name}" for name in files]
        self._whole = sum(ends) <= self._bytes

    def where(self, file: int) -> str:
        return self._files[file]

    def read(self, file: int, offset: int, size: int) -> bytes:
        url = self._files[file]
        if self._whole:
            with self._cache.open(url, self._fetch(url)) as opened:
                return shard.read_member(opened, offset, size)
        data: bytes = self._try(
            url, lambda: self._fs.cat_file(url, start=offset, end=offset + size)
        )
        if len(data) != size:
            raise CorpusError(f"{url}: {size} bytes at {offset} are not there; it is cut off")
        return data

    def _tars(self) -> list[str]:
        braces = BRACES.search(self._url)
        if braces:
            first, last = braces.groups()
            numbers = range(int(first), int(last) + 1)
            named = [f"{i:0{len(first)}d}" for i in numbers]
            return [self._url[: braces.start()] + n + self._url[braces.end() :] for n in named]
        if self._url.endswith(".tar"):
            return [self._url]
        for at in ("/shards", ""):
            found = self._try(self._url, partial(self._listed, self._url + at))
            if names := sorted(n.rpartition("/")[2] for n in found if n.endswith(".tar")):
                return [f"{self._url}{at}/{name}" for name in names]
        raise InputError(
            f"{self._url}: no shards here; give the URL of a corpus, or name the tars, as"
            f" {self._url}/{{00000..00041}}.tar"
        )

    def _listed(self, url: str) -> list[str]:
        with suppress(FileNotFoundError, NotADirectoryError):
            found: list[str] = self._fs.ls(url, detail=False)
            return found
        return []

    def _version(self, url: str) -> str:
        """A name of the file as it is now."""
        about = self._try(url, lambda: self._fs.info(url))
        known = {name: str(about.get(name)) for name in ("size", "ETag", "mtime", "LastModified")}
        return f"{url}?{fingerprint(known)}"

    def _fetch(self, url: str) -> Callable[[Path], None]:
        def fetch(path: Path) -> None:
            def copy() -> None:
                size = self._fs.info(url).get("size")
                with self._fs.open(url, "rb", block_size=PIECE) as there, path.open("wb") as here:
                    while piece := there.read(PIECE):
                        here.write(piece)
                if size is not None and path.stat().st_size != size:
                    raise OSError(f"{path.stat().st_size} of {size} bytes came")

            self._try(url, copy)

        return fetch

    def _try(self, url: str, ask: Callable[[], T]) -> T:
        """Ask again after a pause where the network failed.

        Raises:
            CorpusError: it failed each time, or there is no such file.
        """
        for tried in range(TRIES):
            try:
                return ask()
            except FileNotFoundError:
                raise CorpusError(f"{url}: there is no such file; check the URL") from None
            except self._failures as error:
                if tried == TRIES - 1:
                    what = str(error).splitlines()[0] if str(error) else type(error).__name__
                    raise CorpusError(f"{url}: can't be read: {what}; try again later") from None
                time.sleep(PAUSE * 2**tried)
        raise AssertionError("not reached")
