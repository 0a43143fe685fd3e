"""`wit verify`: hold every file of a corpus against its manifest, and the parts against each other.

The manifest tells whether a file has changed since it was written. The shards are also read as
tars, so that a corpus which was wrong from the start does not pass either.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_settings import CliPositionalArg

from pipeline.sources import is_remote
from wit import manifest
from wit.config import Settings, load
from wit.errors import CorpusError
from wit.manifest import PROVENANCE, Manifest
from wit.progress import Progress
from wit.schema import COUNTS
from wit.shard import load_index, read_groups

CATALOGUE = "corpus.duckdb"
MEMBERS = {"txt", "json"}  # beside the image
NAME = re.compile(r"[0-9]{5,}\.tar")


class VerifyConfig(Settings):
    """Check every file of a corpus: sizes, sha256, members, counts, tables.

    Prints one line and exits with 0 when all is well, with 2 otherwise.
    """

    corpus: CliPositionalArg[str] = "data/corpus"
    """corpus directory, or the URL of a copy (s3://BUCKET/PATH): sizes and sha256 alone"""


def main(argv: Sequence[str]) -> int:
    """Verify one corpus."""
    config = load(VerifyConfig, argv, prog="wit verify")
    if is_remote(config.corpus):
        from pipeline import remote

        print(remote.verify(config.corpus))
    else:
        print(verify(Path(config.corpus.removeprefix("file://"))))
    return 0


def verify(corpus: Path) -> str:
    """Check a corpus; returns the line that says what was checked.

    Raises:
        CorpusError: a file is missing, damaged, not listed or at odds with another; the message
            names the first and the number of further problems.
    """
    expected = manifest.read(corpus)
    # a changed file makes every later remark about it an echo, so those come only when all stand
    progress = Progress("verify")
    found = manifest.verify(corpus, progress) or [
        *_shard_problems(corpus / "shards"),
        *(_shard_problems(corpus / "val") if (corpus / "val").exists() else ()),
        *_table_problems(corpus, expected),
        *_provenance_problems(corpus),
    ]
    progress.clear()
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise CorpusError(f"{found[0]}{more}; run `wit shards` to build it again")
    total = sum(entry["bytes"] for entry in expected.files.values())
    sizes: dict[str, int] = {}
    for path in corpus.glob("*/sizes.json"):
        sizes |= _read_sizes(path)
    tables = "" if _has_duckdb() else "; duckdb is not installed, so the catalogue was not read"
    return (
        f"{corpus}: sound: {len(expected.files)} files, {total:,} bytes, {len(sizes)} shards,"
        f" {sum(sizes.values()):,} samples{tables}"
    )


def _shard_problems(folder: Path) -> Iterator[str]:
    """Shards against sizes.json, index, tables and statistics."""
    sizes = _read_sizes(folder / "sizes.json")
    yield from _file_problems(folder, sizes)
    index = load_index(folder)
    keys: set[str] = set()
    progress = Progress("verify shards")
    for done, (name, size) in enumerate(sizes.items()):
        progress(done, len(sizes), "shards")
        rows = index.filter(pa.compute.equal(index["shard"], name)).to_pylist()
        if len(rows) != size:
            yield f"{folder / 'index.parquet'}: {len(rows)} rows of {name}, sizes.json says {size}"
        yield from _tar_problems(folder / name, rows)
        yield from _attempt_problems(folder, name, size)
        new = {row["key"] for row in rows}
        if keys & new:
            yield f"{folder / name}: key {min(keys & new)} is used in another shard too"
        keys |= new
    progress.clear()
    if index.num_rows != sum(sizes.values()):
        yield f"{folder / 'index.parquet'}: it names shards that sizes.json doesn't"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise CorpusError(f"{path}: missing or not JSON; run `wit shards` again") from None
    if not isinstance(found, dict):
        raise CorpusError(f"{path}: not a JSON object; run `wit shards` again")
    return found


def _read_sizes(path: Path) -> dict[str, int]:
    """Shard -> samples.

    Raises:
        CorpusError: a name that leads elsewhere, or a size that is no number.
    """
    found = _read_json(path)
    for name, size in found.items():
        if not NAME.fullmatch(name) or type(size) is not int or size < 0:
            said = f"{name!r}: {size!r}"[:80]
            raise CorpusError(f"{path}: {said} is no shard and its samples; run `wit shards` again")
    return found


def _file_problems(folder: Path, sizes: dict[str, int]) -> Iterator[str]:
    """Files that the list of shards asks for, and no others."""
    wanted = {"sizes.json", "index.parquet"}
    for name in sizes:
        stem = name.removesuffix(".tar")
        wanted |= {name, f"{stem}.parquet", f"{stem}_stats.json"}
    present = {path.name for path in folder.iterdir()}
    yield from (f"{folder / name}: missing" for name in sorted(wanted - present))
    yield from (f"{folder / name}: not part of a corpus" for name in sorted(present - wanted))


def _tar_problems(tar: Path, rows: list[dict[str, Any]]) -> Iterator[str]:
    """A tar against its rows of the index: the same keys in order, each where it is said."""
    try:
        groups = list(read_groups(tar))
    except CorpusError as error:
        yield str(error)
        return
    if [key for key, _ in groups] != [row["key"] for row in rows]:
        yield f"{tar}: its keys are not those of index.parquet, in order"
        return
    for (key, group), row in zip(groups, rows, strict=True):
        if set(group) != MEMBERS | {row["ext"]}:
            yield f"{tar}: sample {key} has the members {sorted(group)}"
            return
        image, text = group[row["ext"]], group["txt"]
        places = (image.offset, image.size, text.offset, text.size)
        if places != (row["offset"], row["size"], row["text_offset"], row["text_size"]):
            yield f"{tar}: sample {key} doesn't lie where index.parquet says"
            return


def _attempt_problems(folder: Path, name: str, size: int) -> Iterator[str]:
    """The table and the statistics beside a shard against its number of samples."""
    stem = name.removesuffix(".tar")
    table, stats = folder / f"{stem}.parquet", folder / f"{stem}_stats.json"
    if not (table.is_file() and stats.is_file()):
        return  # said already
    statuses = pq.read_table(table, columns=["status"])["status"]
    successes = pa.compute.sum(pa.compute.equal(statuses, "success")).as_py() or 0
    if successes != size:
        yield f"{table}: {successes} successes, sizes.json says {size}"
    found = _read_json(stats)
    parts: list[Any] = [found.get(part) for part in COUNTS]
    total = sum(parts) if all(type(part) is int for part in parts) else None
    if not found.get("count") == len(statuses) == total:
        yield f"{stats}: its counts don't add up to the {len(statuses)} rows of {table.name}"


def _provenance_problems(corpus: Path) -> Iterator[str]:
    """provenance.parquet holds times, so the manifest can't have its sha256; its pages have
    checksums of their own."""
    path = corpus / PROVENANCE
    if not path.exists():
        return
    try:
        found = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        yield f"{path}: damaged: {str(error).splitlines()[0]}"
        return
    urls = found["url"].to_pylist() if "url" in found.column_names else [None] * 2
    if len(urls) != len(set(urls)):
        yield f"{path}: not one row for each URL"


def _has_duckdb() -> bool:
    try:
        return importlib.util.find_spec("duckdb") is not None
    except ModuleNotFoundError:
        return False


def _table_problems(corpus: Path, expected: Manifest) -> Iterator[str]:
    """The tables of the catalogue against the digests in the manifest."""
    path = corpus / CATALOGUE
    if not expected.catalogue and not path.exists():
        return  # of `wit reshard` and `wit merge`, which write shards alone
    if not path.is_file():
        yield f"{path}: missing"
        return
    if not _has_duckdb():
        return
    import duckdb

    from pipeline.catalogue import digest, open_catalogue

    try:
        with open_catalogue(corpus) as con:
            found = digest(con)
    except duckdb.Error as error:  # a page that no longer matches its checksum
        yield f"{path}: {str(error).splitlines()[0]}"
        return
    for name in sorted({*expected.catalogue, *found}):
        if expected.catalogue.get(name) != found.get(name):
            yield f"{path}: table {name} differs from the manifest's"
