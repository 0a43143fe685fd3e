"""Pairs that a person wants out of the corpus: a list in the form that `wit remove` takes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from pipeline import optout
from wit.errors import InputError

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
        self._lock = threading.Lock()
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            text = HEADER.format(corpus=corpus, path=path)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a readable list: {error}; mend or remove it") from None
        self._lines = text.splitlines()
        self.entries = set(optout.parse(self._lines, str(path)).entries)

    def set(self, value: str, on: bool) -> None:
        """Flag or unflag a uid, a sha256, a URL or a domain; it is on disk when this returns.

        Raises:
            InputError: none of these.
        """
        found = optout.parse([value], "flag").entries
        if len(found) != 1 or "\n" in value or "#" in value:
            raise InputError(f"{value[:80]!r} can't be flagged: give a uid, sha256, URL or domain")
        (entry,) = found
        with self._lock:
            if on == (entry in self.entries):
                return
            lines = [line for line in self._lines if entry not in optout.parse([line], "").entries]
            lines += [value] if on else []
            self._write(lines)
            self._lines = lines
            self.entries = self.entries | {entry} if on else self.entries - {entry}

    def _write(self, lines: list[str]) -> None:
        temporary = self.path.with_name(self.path.name + ".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
