"""Lines of the sources: read by number, and those that are not what they should be counted.

A line that can't be read is left out, and the report says how many there were and shows the first.
Where they are more than `max_malformed` of a file it is refused: most likely it is another file.
"""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from wit.config import write_json
from wit.errors import InputError

_NAME = "lines.json"
_READ = 8 << 20  # bytes at a time
_LONGEST = 16 << 20  # bytes of a line
_SHOWN = 80  # characters of an example
_SCHEMA = pa.schema([("number", pa.int64()), ("line", pa.binary())])


@dataclass
class Tally:
    """The lines of one file, or rows or pages where it has none.

    Attributes:
        first: number of the first malformed one, from 1; None where they have no numbers.
        example: its text.
    """

    lines: int = 0
    malformed: int = 0
    first: int | None = None
    example: str | None = None

    def add(self, line: str | bytes, good: bool, number: int | None = None) -> None:
        """Count one."""
        self.lines += 1
        if not good:
            if not self.malformed:
                text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
                self.first, self.example = number, shorten(text)
            self.malformed += 1

    def check(self, path: Path, most: float) -> Tally:
        """Itself, if no more than a share of `most` is malformed.

        Raises:
            InputError: too much is.
        """
        if self.malformed > most * self.lines:
            raise InputError(
                f"{path}: {self.malformed:,} of {self.lines:,} lines are malformed, more than"
                f" max_malformed = {most:g}; {self.shown()}: get the file again, or raise"
                " --max_malformed"
            )
        return self

    def shown(self) -> str:
        """The first malformed line, on one line."""
        if not self.malformed:
            return ""
        text = repr(self.example)
        return f"line {self.first}: {text}" if self.first else text


def shorten(text: str) -> str:
    """The beginning of an example, which may be very long."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def write_tally(tally: Tally, folder: Path) -> None:
    """Put a tally beside the table that was made of the lines."""
    write_json(asdict(tally), folder / _NAME)


def read_tally(folder: Path) -> Tally:
    """The tally that lies beside a table."""
    return Tally(**json.loads((folder / _NAME).read_text("utf-8")))


def add_up(tallies: Sequence[Tally]) -> Tally:
    """The tally of a file that was counted in parts, which lie one after the other."""
    bad = next((tally for tally in tallies if tally.malformed), Tally())
    lines, malformed = (sum(getattr(t, name) for t in tallies) for name in ("lines", "malformed"))
    return Tally(lines, malformed, bad.first, bad.example)


def by_source(tallies: Sequence[tuple[str, str, Tally]]) -> list[dict[str, Any]]:
    """The lines of the report, from (source, file, tally): one a source, in their order."""
    found: dict[str, dict[str, Any]] = {}
    for source, file, tally in tallies:
        row = found.setdefault(
            source, {"source": source, "files": 0, "lines": 0, "malformed": 0, "first": ""}
        )
        row["files"] += 1
        row["lines"] += tally.lines
        row["malformed"] += tally.malformed
        row["first"] = row["first"] or (tally.malformed and f"{file}, {tally.shown()}") or ""
    return list(found.values())


def opened(path: Path) -> IO[bytes]:
    """A file, unpacked by its ending: .gz, .bz2 or none."""
    if path.suffix == ".gz":
        return gzip.open(path)  # type: ignore[return-value]
    return bz2.open(path) if path.suffix == ".bz2" else path.open("rb")


class Numbered:
    """The lines of a file as number (from 1) and line, its bytes with the end of line; streamed.

    Attributes:
        error: what went wrong while the lines were read; Arrow wraps what is raised meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.error: InputError | None = None

    def reader(self) -> pa.RecordBatchReader:
        """A stream of the lines.

        Raises:
            InputError: while it is read: damaged, truncated, or no lines at all.
        """
        return pa.RecordBatchReader.from_batches(_SCHEMA, self._checked())

    def _checked(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches()
        except (EOFError, OSError) as error:
            self.error = InputError(
                f"{self._path}: truncated or damaged ({error}): download it again"
            )
            raise self.error from None
        except InputError as error:
            self.error = error
            raise

    def _batches(self) -> Iterator[pa.RecordBatch]:
        held, number = b"", 1
        with opened(self._path) as file:
            while data := file.read(_READ):
                held += data
                end = held.rfind(b"\n") + 1
                if end:
                    batch = _batch(held[:end], number)
                    yield batch
                    number, held = number + batch.num_rows, held[end:]
                if len(held) > _LONGEST:
                    raise InputError(f"{self._path}: line {number:,} does not end: check the path")
            if held:
                yield _batch(held, number)


def _batch(text: bytes, first: int) -> pa.RecordBatch:
    """Lines that begin at number `first`, each with its end; no byte is copied."""
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1
    last = [] if text.endswith(b"\n") else [len(text)]
    bounds = np.concatenate([[0], ends, last]).astype(np.int32)
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(text)]
    lines = pa.BinaryArray.from_buffers(pa.binary(), len(bounds) - 1, buffers)
    numbers = pa.array(np.arange(first, first + len(lines)), pa.int64())
    return pa.record_batch([numbers, lines], schema=_SCHEMA)
