"""A bounded folder of fetched shards: the least recently used go first.

Any number of processes may share it. A shard is fetched under a temporary name by the first that
wants it, checked and renamed, while others wait for its lock; a reader that has it open keeps it
when it is dropped.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


class ShardCache:
    """Files by URL, at most `room` bytes of them, and always the one that was asked for last."""

    def __init__(self, folder: Path, room: int) -> None:
        self._folder, self._room = folder, room
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def open(self, url: str, fetch: Callable[[Path], None]) -> Iterator[BinaryIO]:
        """The file of a URL, open for reading.

        Args:
            fetch: writes the whole file, checked, to the path it is given.
        """
        path = self._path(url)
        while True:
            try:
                file = path.open("rb", buffering=0)
                break
            except FileNotFoundError:  # not there yet, or dropped since it was fetched
                self._fetch(path, fetch)
        with file:
            with suppress(FileNotFoundError):
                now = time.time_ns()  # the kernel's own is good to some milliseconds only
                os.utime(path, ns=(now, now))
            yield file

    def local(self, url: str, fetch: Callable[[Path], None]) -> Path:
        """The path of a URL's file; it may be dropped at any time."""
        with self.open(url, fetch):
            return self._path(url)

    def _path(self, url: str) -> Path:
        name = url.rstrip("/").rpartition("/")[2]
        return self._folder / hashlib.sha256(url.encode()).hexdigest()[:16] / name

    def _fetch(self, path: Path, fetch: Callable[[Path], None]) -> None:
        path.parent.mkdir(exist_ok=True)
        with locked(path.parent / ".lock"):
            if path.is_file():
                return
            temporary = path.with_name(f"{path.name}.tmp")  # of a killed try: overwritten
            fetch(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        with locked(self._folder / ".lock"):
            self._drop(path)

    def _drop(self, keep: Path) -> None:
        """Remove the files used longest ago until the rest has room; temporary ones count too."""
        files = []
        for path in self._folder.glob("*/[!.]*"):
            with suppress(FileNotFoundError):
                about = path.stat()
                files.append((about.st_mtime_ns, about.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._room:
                break
            if path != keep and path.suffix != ".tmp":
                path.unlink(missing_ok=True)
                total -= size


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time is inside, of all that name this file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
