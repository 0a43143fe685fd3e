"""Opt-outs: a list of what may not be in a corpus, kept as optouts.txt at its top.

One entry a line: a uid (32 hex digits), the sha256 of an image (64), a URL, or a domain, which
stands for its subdomains too. `#` begins a comment. The list only grows: `wit remove` adds to it
and takes the pairs out at once; `wit shards` keeps to it in every later build.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import EngineConfig, ShardsConfig
from pipeline.engine import connect, sql_text
from wit.errors import InputError
from wit.files import write_durably

NAME = "optouts.txt"
KINDS = (
    ("uid", re.compile(r"[0-9a-f]{32}")),
    ("sha256", re.compile(r"[0-9a-f]{64}")),
    ("url", re.compile(r"https?://\S+", re.IGNORECASE)),
    ("domain", re.compile(r"[\w-]+(\.[\w-]+)+")),
)


@dataclass(frozen=True)
class OptOuts:
    """The entries of a list, by kind."""

    entries: frozenset[tuple[str, str]]

    def table(self) -> pa.Table:
        """kind, value: what the SQL compares with."""
        listed = sorted(self.entries)
        columns = {name: [entry[i] for entry in listed] for i, name in enumerate(("kind", "value"))}
        return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})

    def forbid(self, url: str) -> bool:
        """Whether a URL may not even be asked for."""
        if not self.entries:
            return False
        if ("url", url.strip()) in self.entries:
            return True
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            return False
        labels = host.split(".")
        parents = (".".join(labels[i:]) for i in range(len(labels)))
        return any(("domain", parent) in self.entries for parent in parents)


def parse(lines: Iterable[str], where: str) -> OptOuts:
    """Entries of a list.

    Raises:
        InputError: a line is none of the four kinds.
    """
    found = set()
    for number, line in enumerate(lines, 1):
        entry = without_comment(line)
        if not entry:
            continue
        value = entry if "://" in entry else entry.lower().removeprefix("www.")
        kind = next((kind for kind, form in KINDS if form.fullmatch(value)), None)
        if kind is None:
            raise InputError(
                f"{where}:{number}: {entry!r} is no uid, sha256, URL or domain: mend that line"
            )
        found.add((kind, value))
    return OptOuts(frozenset(found))


def without_comment(line: str) -> str:
    """The entry on a line; empty when there is none."""
    return re.sub(r"(^|\s)#.*", "", line).strip()


def is_kind(kind: str, entry: str) -> bool:
    """Whether an entry is of a kind, whatever the case of its letters."""
    return dict(KINDS)[kind].fullmatch(entry.lower()) is not None


def read(corpus: Path) -> OptOuts:
    """The list of a corpus; empty when it has none."""
    path = corpus / NAME
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return parse(lines, str(path))


def write(corpus: Path, listed: OptOuts) -> None:
    """Make a list that of a corpus."""
    text = "".join(f"{value}\n" for _, value in sorted(listed.entries))
    write_durably(corpus / NAME, text.encode())


def concerned(corpus: Path, listed: OptOuts) -> list[str]:
    """uids of the pairs in the shards of a corpus that a list takes out."""
    with TemporaryDirectory() as folder, connect(EngineConfig(), Path(folder) / "spill") as con:
        path = Path(folder) / "optouts.parquet"
        pq.write_table(listed.table(), path)
        given = {"pairs": str(corpus / "pairs" / "*.parquet"), "optouts": str(path)}
        con.execute(f"SELECT uid FROM ({sql_text('remove_rows.sql')}) WHERE kept", given)
        return [uid for (uid,) in con.fetchall()]


def files(config: ShardsConfig) -> list[Path]:
    """The list as an input file of a stage."""
    path = config.corpus / NAME
    return [path] if path.exists() else []
