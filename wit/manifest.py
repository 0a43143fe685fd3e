"""The manifest of a corpus: what was built from what, and the digest of every file.

It is written last, so a corpus without a manifest is unfinished. It covers the files that make
the corpus (`COVERED`); the work tables under stages/ and the log of timings may come and go,
and corpus.duckdb, whose header holds a random id, is covered by digests of its tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt

from wit.config import fingerprint, write_json
from wit.errors import CorpusError

NAME = "manifest.json"
PROVENANCE = "provenance.parquet"  # beside it, and not covered: it holds times
COVERED = ("config.json", "optouts.txt", "overlaps", "queries.parquet", "pairs", "shards", "val")


@dataclass(frozen=True)
class Manifest:
    """What a corpus holds.

    Attributes:
        fingerprint: of everything that decided its content.
        versions: of the software that decided it, by name.
        files: path relative to the corpus -> {"bytes": int, "sha256": hex}.
        stages: {"name", "rows_in", "rows_out", "reasons": {reason: rows}} in order.
        catalogue: table of corpus.duckdb -> {"rows": int, "digest": hex}.
    """

    fingerprint: str
    versions: dict[str, str]
    files: dict[str, dict[str, Any]]
    stages: list[dict[str, Any]]
    catalogue: dict[str, dict[str, Any]]


def write(corpus: Path, manifest: Manifest) -> None:
    """Write `corpus/manifest.json` durably, with a digest of itself."""
    plain = asdict(manifest)
    write_json({**plain, "digest": fingerprint(plain)}, corpus / NAME)


def read(corpus: Path, name: str = NAME) -> Manifest:
    """Read the manifest of a finished corpus; `name` is that of its file.

    Raises:
        CorpusError: missing (the corpus is unfinished or elsewhere) or not a manifest.
    """
    path = corpus / name
    try:
        return parse(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise CorpusError(
            f"{path}: no manifest, so no finished corpus; run `wit shards --corpus {corpus}`"
        ) from None
    except (ValueError, OSError):
        raise CorpusError(
            f"{path}: damaged, or not a manifest of this version; run `wit shards`"
        ) from None


def parse(data: bytes) -> Manifest:
    """A manifest from its JSON, which may come from a stranger: no file that it names lies outside
    of what a corpus has.

    Raises:
        ValueError: not JSON, other keys or types, or changed since it was written.
    """
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("no object")
    digest = found.pop("digest", None)
    if digest is not None and digest != fingerprint(found):
        raise ValueError("its digest differs")
    return Manifest(**_Plain.model_validate(found).model_dump())


def _inside(name: str) -> str:
    parts = name.split("/")
    if parts[0] not in COVERED or not {"", ".", ".."}.isdisjoint(parts) or "\0" in name:
        raise ValueError("not a file of a corpus")
    return name


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _File(_Strict):
    bytes: NonNegativeInt
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Stage(_Strict):
    name: str
    rows_in: NonNegativeInt
    rows_out: NonNegativeInt
    reasons: dict[str, NonNegativeInt]


class _Table(_Strict):
    rows: NonNegativeInt
    digest: str


class _Plain(_Strict):
    """What the JSON of a manifest must hold; see `Manifest`."""

    fingerprint: str
    versions: dict[str, str]
    files: dict[Annotated[str, AfterValidator(_inside)], _File]
    stages: list[_Stage]
    catalogue: dict[str, _Table]


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scan(corpus: Path) -> dict[str, dict[str, Any]]:
    """Bytes and sha256 of every covered file, by path relative to the corpus, sorted."""
    return {
        path.relative_to(corpus).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256_file(path),
        }
        for path in covered_files(corpus)
    }


def covered_files(corpus: Path) -> Iterator[Path]:
    """The files that a manifest covers, in order of their paths."""
    for name in COVERED:
        path = corpus / name
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if not p.is_dir())
        elif path.exists():
            yield path


def verify(corpus: Path, progress: Callable[[float, float, str], None] | None = None) -> list[str]:
    """Compare every covered file with the manifest.

    Args:
        progress: is told how many megabytes of how many were read.

    Returns:
        One problem per line, each beginning with the path of the file; empty when all is well.

    Raises:
        CorpusError: there is no manifest to compare with.
    """
    expected = read(corpus).files
    problems = []
    done, total = 0, sum(entry["bytes"] for entry in expected.values())
    for name, entry in sorted(expected.items()):
        path = corpus / name
        if progress is not None:
            progress(done / 1e6, total / 1e6, "MB")
        done += entry["bytes"]
        if not path.is_file():
            problems.append(f"{path}: missing")
        elif path.stat().st_size != entry["bytes"]:
            problems.append(f"{path}: {path.stat().st_size} bytes, not {entry['bytes']}")
        elif sha256_file(path) != entry["sha256"]:
            problems.append(f"{path}: its sha256 differs from the manifest's")
    for path in covered_files(corpus):
        if path.relative_to(corpus).as_posix() not in expected:
            problems.append(f"{path}: not in the manifest")
    return problems
