"""Corpora elsewhere: a finished one copied to any store that fsspec writes, and verified there.

A corpus is built on a local disk, because its stages rename and append. What goes up is what the
manifest covers, with the catalogue and the provenance; the manifest is taken away first and comes
back last, so a reader never finds one beside files that it doesn't describe. A file that lies
there with the same bytes is left alone, so a copy that broke off goes on where it was. What isn't
of a corpus is never overwritten or deleted: a manifest, or the mark of a copy under way, says that
a corpus lies there.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from pipeline.sources import url_to_fs
from wit import manifest
from wit.errors import CorpusError
from wit.progress import Progress

BESIDE = ("corpus.duckdb", manifest.PROVENANCE)  # whose bytes differ between equal builds
MARK = ".upload.json"  # the manifest of a copy that is under way
OBJECT_STORES = frozenset({"s3", "gs", "gcs", "abfs", "az"})
THREADS = 8
CHUNK = 50 * 2**20  # of a large upload; S3's tag of an object depends on it
READ = 2**20


class Store:
    """One corpus in a store: its file system and the path of its top folder."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        with self.errors():
            self.system, top = url_to_fs(self.url)
        self._top = top.rstrip("/")

    def path(self, name: str) -> str:
        return f"{self._top}/{name}"

    def read(self, name: str) -> bytes:
        """All of a small file.

        Raises:
            FileNotFoundError: it isn't there.
        """
        self.system.invalidate_cache()
        found: bytes = self.system.cat_file(self.path(name))
        return found

    def sizes(self) -> dict[str, int]:
        """Relative path -> bytes, of everything there."""
        self.system.invalidate_cache()
        found = self.system.find(self._top, detail=True)
        return {path[len(self._top) + 1 :]: int(info["size"]) for path, info in found.items()}

    def sha256(self, name: str) -> str:
        state = hashlib.sha256()
        with self.system.open(self.path(name), "rb", block_size=8 * READ) as file:
            while block := file.read(READ):
                state.update(block)
        return state.hexdigest()

    def holds(self, name: str, local: Path, sha256: str) -> bool:
        """Whether a file there has the bytes of a local one: by its tag if that is one of S3's
        over the plain bytes, else by reading it.

        Raises:
            CorpusError: the local file has another sha256 than it should.
        """
        try:
            info = self.system.info(self.path(name))
        except FileNotFoundError:
            return False
        if info["size"] != local.stat().st_size:
            return False
        tag = str(info.get("ETag", "")).strip('"')
        return tag in _tags(local, sha256) if tag else self.sha256(name) == sha256

    def put(self, name: str, local: Path, sha256: str) -> None:
        """Copy a file there and make sure of it.

        Raises:
            CorpusError: what lies there is not what was sent.
        """
        more = {"chunksize": CHUNK} if "s3" in self._kinds() else {}
        self._make_folder(name)
        self.system.put_file(str(local), self.path(name), **more)
        self.system.invalidate_cache()
        if not self.holds(name, local, sha256) and self.sha256(name) != sha256:
            raise self._differs(name)

    def write(self, name: str, data: bytes) -> None:
        """Write a small file and make sure of it.

        Raises:
            CorpusError: what lies there is not what was sent.
        """
        self._make_folder(name)
        self.system.pipe_file(self.path(name), data)
        if self.read(name) != data:
            raise self._differs(name)

    def _kinds(self) -> set[str]:
        kinds = self.system.protocol
        return {kinds} if isinstance(kinds, str) else {*kinds}

    def _make_folder(self, name: str) -> None:
        if self._kinds().isdisjoint(OBJECT_STORES):  # these have none, but would make a bucket
            self.system.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)

    def _differs(self, name: str) -> CorpusError:
        return CorpusError(
            f"{self.url}/{name}: not the bytes that were sent: run the same command again"
        )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What a store answers becomes one line."""
        boto = getattr(sys.modules.get("botocore.exceptions"), "BotoCoreError", OSError)
        try:
            yield
        except (OSError, ValueError, boto) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise CorpusError(
                f"{self.url}: {said[0]}: check the address, your credentials and the network, then"
                " run the same command again: what is there already stays"
            ) from None


def upload(corpus: Path, url: str) -> str:
    """Copy a finished corpus to a store; returns the line that says what was done.

    Raises:
        CorpusError: the corpus is not finished, in use or damaged, the store refuses, or something
            else lies there.
    """
    from pipeline.build import locked

    manifest.read(corpus)
    with locked(corpus, shared=True):  # nothing is built or removed meanwhile
        whole = (corpus / manifest.NAME).read_bytes()
        files = manifest.read(corpus).files
        sums = {name: str(entry["sha256"]) for name, entry in files.items()}
        beside = [name for name in BESIDE if (corpus / name).exists()]
        sums |= {name: manifest.sha256_file(corpus / name) for name in beside}
        store = Store(url)
        with store.errors():
            return _upload(corpus, store, sums, whole)


def _upload(corpus: Path, store: Store, sums: dict[str, str], whole: bytes) -> str:
    """Copy the files of `sums` (name -> sha256), then the manifest, whose bytes are `whole`."""
    there, progress = store.sizes(), Progress("upload")
    _check_corpus(store, there)
    stale = sorted(there.keys() - sums.keys() - {manifest.NAME, MARK})
    todo = [name for name in sums if not store.holds(name, corpus / name, sums[name])]
    same = manifest.NAME in there and store.read(manifest.NAME) == whole
    if not todo and not stale and same and MARK not in there:
        return f"{store.url} is up to date"
    store.write(MARK, whole)
    for name in (manifest.NAME, *stale):
        if name in there:
            store.system.rm_file(store.path(name))
    total, done = sum((corpus / name).stat().st_size for name in todo), 0
    with ThreadPoolExecutor(THREADS) as pool:
        sent = {pool.submit(store.put, name, corpus / name, sums[name]): name for name in todo}
        for future in as_completed(sent):
            future.result()
            done += (corpus / sent[future]).stat().st_size
            progress(done, total, "bytes")
    store.write(manifest.NAME, whole)
    store.system.rm_file(store.path(MARK))
    return f"{store.url}: {len(todo)} of {len(sums)} files copied, {total:,} bytes"


def _check_corpus(store: Store, there: Collection[str]) -> None:
    """Raises `CorpusError` where anything lies that is not of a corpus."""
    own = {*manifest.COVERED, *BESIDE, manifest.NAME, MARK}
    foreign = sorted(name for name in there if name.partition("/")[0] not in own)
    marks = [name for name in (manifest.NAME, MARK) if name in there]
    if foreign or (there and not any(_is_manifest(store.read(name)) for name in marks)):
        raise CorpusError(
            f"{store.url}/{(foreign or sorted(there))[0]}: not of a corpus that `wit shards` copied"
            " there, and nothing is overwritten: move it away or give another --upload"
        )


def _is_manifest(data: bytes) -> bool:
    try:
        manifest.parse(data)
    except ValueError:
        return False
    return True


def verify(url: str) -> str:
    """Hold every file of a corpus in a store against its manifest, by size and sha256.

    Raises:
        CorpusError: no manifest there, or a file is missing, damaged or not listed.
    """
    store = Store(url)
    with store.errors():
        found, there = _manifest(store), store.sizes()
    try:
        expected = manifest.parse(found).files
    except ValueError:
        raise CorpusError(f"{url}/{manifest.NAME}: damaged; copy the corpus again") from None
    problems = [f"{url}/{name}: missing" for name in sorted(expected.keys() - there.keys())]
    known = {*expected, *BESIDE, manifest.NAME, MARK}  # the mark goes after the manifest came
    problems += [f"{url}/{name}: not in the manifest" for name in sorted(there.keys() - known)]
    with store.errors(), ThreadPoolExecutor(THREADS) as pool:
        both = sorted(expected.keys() & there.keys())
        for name, digest in zip(both, pool.map(store.sha256, both), strict=True):
            if there[name] != expected[name]["bytes"]:
                size = expected[name]["bytes"]
                problems.append(f"{url}/{name}: {there[name]} bytes, not {size}")
            elif digest != expected[name]["sha256"]:
                problems.append(f"{url}/{name}: its sha256 differs from the manifest's")
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CorpusError(f"{problems[0]}{more}; copy the corpus again: wit shards --upload {url}")
    total = sum(entry["bytes"] for entry in expected.values())
    return f"{url}: sound: {len(expected)} files, {total:,} bytes"


def _manifest(store: Store) -> bytes:
    try:
        return store.read(manifest.NAME)
    except FileNotFoundError:
        raise CorpusError(
            f"{store.url}/{manifest.NAME}: no manifest, so no finished corpus; copy it there with"
            f" wit shards --upload {store.url}"
        ) from None


def _tags(path: Path, sha256: str) -> tuple[str, str]:
    """The tags that S3 gives a file sent at once, and one sent in parts of `CHUNK` bytes.

    Raises:
        CorpusError: the file has another sha256.
    """
    whole, parts = hashlib.md5(usedforsecurity=False), []
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            whole.update(block)
            state.update(block)
            parts.append(hashlib.md5(block, usedforsecurity=False).digest())
    if state.hexdigest() != sha256:
        raise CorpusError(
            f"{path}: its sha256 differs from the manifest's: see `wit verify`, and `wit shards`"
            " builds it again"
        )
    joined = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return whole.hexdigest(), f"{joined}-{len(parts)}"
