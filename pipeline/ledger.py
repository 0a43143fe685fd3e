"""NNNNNN.ledger: what became of the URLs of one shard so far, image by image, as it comes.

Records are only ever appended, and each has a checksum, so whatever a kill or a power cut leaves
is read up to the last whole record. The last record of a URL counts. A finished shard replaces
its ledger (`pipeline.finish`).
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.task import Outcome

HEAD = struct.Struct("<III")  # bytes of the outcome, bytes of the image, crc32 of both
SYNC_S = 5.0  # seconds of work that a power cut may cost
BUFFER = 2**20
SUFFIX = ".ledger"


@dataclass(frozen=True)
class Place:
    """Where the image of a record lies in the ledger; size 0 when there is none."""

    offset: int
    size: int


def record(outcome: Outcome, image: bytes | None) -> bytes:
    """An outcome and its image as they stand in a ledger."""
    meta = json.dumps(outcome.as_dict(), separators=(",", ":")).encode()
    image = image or b""
    checksum = zlib.crc32(image, zlib.crc32(meta))
    return b"".join((HEAD.pack(len(meta), len(image), checksum), meta, image))


def read(path: Path) -> Iterator[tuple[Outcome, Place, int]]:
    """The records of a ledger and the position after each, up to the first that is not whole."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        while len(head := file.read(HEAD.size)) == HEAD.size:
            meta_size, image_size, checksum = HEAD.unpack(head)
            data = file.read(meta_size + image_size)
            if len(data) != meta_size + image_size or zlib.crc32(data) != checksum:
                return
            end = file.tell()
            outcome = Outcome(**json.loads(data[:meta_size]))
            yield outcome, Place(end - image_size, image_size), end


class Ledger:
    """One shard's ledger; what lies behind the last whole record is cut.

    `known` is what it held when it was opened.

    Between records it may be closed, so that many ledgers need not be open files.
    """

    def __init__(self, path: Path) -> None:
        self.known: dict[int, bool] = {}  # index -> whether its outcome is final
        whole = 0
        for outcome, _, end in read(path):
            self.known[outcome.index] = outcome.final
            whole = end
        self._path = path
        self._file: BinaryIO | None = path.open("ab", BUFFER)
        self._file.truncate(whole)
        self._synced = time.monotonic()

    def append(self, record: bytes) -> None:
        """Add one record; `flush` writes what was added."""
        if self._file is None:
            self._file = self._path.open("ab", BUFFER)
        self._file.write(record)

    def flush(self) -> None:
        """Write the records; they are on disk after `SYNC_S` seconds at most while more come."""
        if self._file is None:
            return
        self._file.flush()
        if time.monotonic() - self._synced > SYNC_S:
            os.fdatasync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Close the file until the next record."""
        if self._file is not None:
            self._file.close()
        self._file = None
