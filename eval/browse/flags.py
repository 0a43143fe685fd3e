"""Pairs that a person wants out of the corpus: a list in the form that `wit remove` takes."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import optout
from wit.errors import InputError
from wit.files import write_durably

HEADER = "# flagged in wit browse; to take these out: wit remove {corpus} --file {path}\n"
Entry = tuple[str, str]  # kind and value, as optout has them


class Flags:
    """The list on disk. A line that a person wrote into it stays as it is.

    Args:
        path: the list; made with the first flag.
        corpus: whose pairs are flagged; named in the first line.

    Raises:
        InputError: a line that is no uid, sha256, URL or domain.
    """

    def __init__(self, path: Path, corpus: Path) -> None:
        self.path = path
        self._corpus, self._lock = corpus, threading.Lock()
        self._read()

    def _read(self) -> None:
        """Take up what the list says now."""
        path = self.path
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            text = HEADER.format(corpus=self._corpus, path=path)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a readable list: {error}; mend or remove it") from None
        self._lines = text.splitlines()
        self.entries = set(optout.parse(self._lines, str(path)).entries)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep other threads, and other pages that write the same list, out."""
        beside = self.path.with_name(f".{self.path.name}.lock")
        with self._lock, beside.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def set(self, value: str, on: bool) -> None:
        """Flag or unflag a uid, a sha256, a URL or a domain; it is on disk when this returns.

        Raises:
            InputError: none of these.
        """
        found = optout.parse([value], "flag").entries
        if len(found) != 1 or "\n" in value or "#" in value:
            raise InputError(f"{value[:80]!r} can't be flagged: give a uid, sha256, URL or domain")
        (entry,) = found
        with self._held():
            self._read()  # it may have been written since, by hand or by another page
            if on == (entry in self.entries):
                return
            lines = [line for line in self._lines if entry not in optout.parse([line], "").entries]
            lines += [value] if on else []
            write_durably(self.path, "".join(f"{line}\n" for line in lines).encode())
            self._lines = lines
            self.entries = self.entries | {entry} if on else self.entries - {entry}
