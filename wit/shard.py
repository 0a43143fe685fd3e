"""A shard: a plain webdataset tar of `KEY.jpg KEY.txt KEY.json`, written and read in order.

Ours hold at most 10,000 samples, with members adjacent, keys unique and every byte decided by
the samples alone. Reading takes anybody's tar of that kind and says what is wrong with it:
`tarfile` itself ends quietly at a damaged header, so the end of the archive is checked here.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from wit import schema
from wit.errors import CorpusError, InputError, SampleError
from wit.index_cache import OnBad, index_file, index_of

INDEX_ROWS = 1 << 16  # of an index, in memory at once
IMAGE_EXTS = ("jpg", "jpeg", "png", "webp", "avif")


@dataclass(frozen=True)
class Sample:
    """One image-text pair as it lies in a shard.

    Attributes:
        key: unique within a corpus; ours are 5 digits of shard and 4 of position.
        image: the encoded image.
        ext: extension of the image member: jpg, jpeg, png, webp or avif.
        text: the caption.
        meta: the content of the json member; ours has at least `uid`.
    """

    key: str
    image: bytes
    ext: str
    text: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Member:
    """Where the bytes of one tar member lie."""

    offset: int
    size: int


class TarWriter:
    """A tar (ustar) from front to back: what `tarfile` would write, without the file object and
    the header from scratch that it makes for every member."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._offset = file, 0
        # mtime 0, owner 0, mode 0644: nothing of this machine
        self._header = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)

    def add(self, name: str, data: bytes) -> Member:
        """Write one member; returns where its bytes lie."""
        padding = bytes(-len(data) % tarfile.BLOCKSIZE)
        self._file.write(b"".join((self._head(name.encode(), len(data)), data, padding)))
        member = Member(self._offset + tarfile.BLOCKSIZE, len(data))
        self._offset = member.offset + len(data) + len(padding)
        return member

    def _head(self, name: bytes, size: int) -> bytes:
        if len(name) > tarfile.LENGTH_NAME or size >= 8**11:
            info = tarfile.TarInfo(name.decode())
            info.size = size
            return info.tobuf(tarfile.USTAR_FORMAT)
        # name, size and checksum are all that differs; the checksum counts itself as spaces
        head = bytearray(self._header)
        head[: len(name)] = name
        head[124:135] = b"%011o" % size
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        return bytes(head)

    def close(self) -> None:
        """Write the end of the archive; the file stays open."""
        end = self._offset + 2 * tarfile.BLOCKSIZE
        self._file.write(bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE))


def shard_name(i: int) -> str:
    """File name of shard `i`: `00000.tar`."""
    return f"{i:05d}.tar"


def sample_key(shard: int, i: int) -> str:
    """Key of sample `i` of a shard: `000000012` is sample 12 of shard 0."""
    return f"{shard:05d}{i:04d}"


def write_shard(path: Path, samples: Iterable[Sample]) -> pa.Table:
    """Write samples in the given order; the same samples give the same bytes.

    The file appears under its name only when it is complete and on disk.

    Returns:
        One `schema.INDEX` row per sample.

    Raises:
        CorpusError: a key is empty, has a dot, or occurs twice; an extension is not an image's.
    """
    temporary = path.with_name(path.name + ".tmp")
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    with temporary.open("wb") as file:
        tar = TarWriter(file)
        for sample in samples:
            _check_writable(path, sample, seen)
            image = tar.add(f"{sample.key}.{sample.ext}", sample.image)
            text = tar.add(f"{sample.key}.txt", sample.text.encode())
            meta = json.dumps(sample.meta, ensure_ascii=False, sort_keys=True)
            tar.add(f"{sample.key}.json", meta.encode())
            uid = str(sample.meta["uid"]) if "uid" in sample.meta else None
            rows.append(_index_row(path, sample.key, uid, sample.ext, image, "txt", text))
        tar.close()
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return pa.Table.from_pylist(rows, schema=schema.INDEX)


def _check_writable(path: Path, sample: Sample, seen: set[str]) -> None:
    if not sample.key or "." in sample.key or "/" in sample.key:
        raise CorpusError(f"{path}: {sample.key!r} can't be a key: use no dot and no slash")
    if sample.key in seen:
        raise CorpusError(f"{path}: key {sample.key} is written twice; keys must be unique")
    if sample.ext not in IMAGE_EXTS:
        raise CorpusError(f"{path}: sample {sample.key}: {sample.ext} is not an image extension")
    seen.add(sample.key)


def _index_row(
    path: Path, key: str, uid: str | None, ext: str, image: Member, text_ext: str, text: Member
) -> dict[str, Any]:
    return {
        "key": key,
        "uid": uid,
        "shard": path.name,
        "ext": ext,
        "offset": image.offset,
        "size": image.size,
        "text_ext": text_ext,
        "text_offset": text.offset,
        "text_size": text.size,
    }


def read_groups(path: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """Each key of a webdataset tar with its members by extension, without their bytes.

    As in webdataset, a key is the member's path up to the first dot of its file name and the
    extension is the rest, in lower case.

    Raises:
        CorpusError: not a plain tar, cut off, damaged, a member that is a link or a device,
            or members of one key that are not adjacent.
    """
    key, group = "", dict[str, Member]()
    seen: set[str] = set()
    for name, member in _members(path):
        folder, _, base = name.rpartition("/")
        stem, dot, ext = base.partition(".")
        if not stem or not dot:
            continue  # webdataset's own rule: a name without a key or extension is not a sample
        this = f"{folder}/{stem}" if folder else stem
        if this != key:
            if group:
                yield key, group
            if this in seen:
                raise CorpusError(
                    f"{path}: the members of key {this} are not adjacent (or the key is used "
                    "twice); write each sample's members together, under a key of its own"
                )
            seen.add(this)
            key, group = this, {}
        if ext.lower() in group:
            raise CorpusError(f"{path}: member {name} occurs twice; keys must be unique")
        group[ext.lower()] = member
    if group:
        yield key, group


def _members(path: Path) -> Iterator[tuple[str, Member]]:
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            total = os.fstat(file.fileno()).st_size
            for info in tar:
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    raise CorpusError(f"{path}: member {info.name} is not a plain file; remove it")
                if info.offset_data + info.size > total:
                    raise CorpusError(f"{path}: member {info.name} is cut off; fetch it again")
                yield info.name, Member(info.offset_data, info.size)
            file.seek(tar.offset)
            end = file.read(tarfile.BLOCKSIZE)
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such shard") from None
    except tarfile.TarError as error:
        raise CorpusError(f"{path}: not a sound tar file: {error}; build it again") from None
    if len(end) < tarfile.BLOCKSIZE or any(end):
        raise CorpusError(f"{path}: cut off or damaged at byte {tar.offset}; build it again")


def read_member(file: BinaryIO, offset: int, size: int) -> bytes:
    """The bytes of one member of an open tar.

    Raises:
        CorpusError: the file ends before them.
    """
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        name = getattr(file, "name", "shard")
        raise CorpusError(f"{name}: {size} bytes at {offset} are not there; it is cut off")
    return data


def read_caption(ext: str, data: bytes) -> str:
    """The caption in a txt member, or in the `caption` or `text` of a json member.

    Raises:
        ValueError: not UTF-8, not a JSON object, or no caption in it.
    """
    if ext == "txt":
        return data.decode()
    meta = json.loads(data)
    caption = meta.get("caption", meta.get("text")) if isinstance(meta, dict) else None
    if not isinstance(caption, str):
        raise ValueError("no caption")
    return caption


def read_shard(path: Path, on_bad: OnBad | None = None) -> Iterator[Sample]:
    """The samples of any webdataset tar, in order.

    Args:
        path: the tar file.
        on_bad: called for each sample that can't be used; without it the first one is raised.

    Raises:
        CorpusError: the tar itself is damaged (see `read_groups`).
        SampleError: a sample has no image, no caption, or an unreadable one.
    """
    with path.open("rb") if path.is_file() else io.BytesIO() as file:
        for key, group in read_groups(path):
            parts = {ext: read_member(file, m.offset, m.size) for ext, m in group.items()}
            try:
                yield _sample(path, key, parts)
            except SampleError as error:
                if on_bad is None:
                    raise
                on_bad(error)


def _sample(path: Path, key: str, parts: dict[str, bytes]) -> Sample:
    ext, text_ext = _pick(path, key, parts)
    try:
        text = read_caption(text_ext, parts[text_ext])
        meta = json.loads(parts["json"]) if "json" in parts else {}
    except ValueError:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise SampleError(key, str(path), "bad_caption") from None
    if not isinstance(meta, dict):
        raise SampleError(key, str(path), "bad_json")
    return Sample(key, parts[ext], ext, text, meta)


def _pick(path: Path, key: str, group: Iterable[str]) -> tuple[str, str]:
    """The extensions of a group's image and caption."""
    exts = set(group)
    image = next((ext for ext in IMAGE_EXTS if ext in exts), None)
    text = next((ext for ext in ("txt", "json") if ext in exts), None)
    if image is None:
        raise SampleError(key, str(path), "no_image")
    if text is None:
        raise SampleError(key, str(path), "no_caption")
    return image, text


def index_shard(path: Path, on_bad: OnBad | None = None) -> pa.Table:
    """Index a foreign tar by its headers alone; `uid` is null.

    Args:
        path: the tar file.
        on_bad: called for each group without image or caption; else the first one is raised.

    Returns:
        One `schema.INDEX` row per sample.
    """
    rows = []
    for key, group in read_groups(path):
        try:
            ext, text_ext = _pick(path, key, group)
        except SampleError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        rows.append(_index_row(path, key, None, ext, group[ext], text_ext, group[text_ext]))
    return pa.Table.from_pylist(rows, schema=schema.INDEX)


def shards_folder(path: Path) -> Path:
    """`path/shards` of a corpus; any other folder itself."""
    inside = path / "shards"
    return inside if inside.is_dir() else path


def shard_folders(path: Path) -> list[Path]:
    """`path/shards` of a corpus and, where pairs are held out, `path/val`; any other folder itself.
    Keys and names of shards are unique over both."""
    first, held_out = shards_folder(path), path / "val"
    return [first, held_out] if first != path and held_out.is_dir() else [first]


def load_index(path: Path, on_bad: OnBad | None = None) -> pa.Table:
    """The index of a corpus, or of a folder of webdataset tars by scanning them, once.

    Args:
        path: a corpus directory or a folder with `*.tar`.
        on_bad: as for `index_shard`.

    Returns:
        `schema.INDEX` rows, sorted by shard name and position in the shard.

    Raises:
        InputError: no such folder, or no tar in it.
        CorpusError: a damaged tar, or an index with other columns.
    """
    stored = shards_folder(path) / "index.parquet"
    if stored.is_file():
        return _read_index(stored)
    return index_of(_tars(path), index_shard, on_bad)


def find_index(path: Path, on_bad: OnBad | None = None) -> Path | pa.Table:
    """As `load_index`, but the Parquet file that holds the rows: for sets larger than memory.

    Of a foreign folder whose index can be kept nowhere, the rows themselves.
    """
    stored = shards_folder(path) / "index.parquet"
    return stored if stored.is_file() else index_file(_tars(path), index_shard, on_bad)


def index_batches(found: Path | pa.Table) -> Iterator[pa.RecordBatch]:
    """The rows that `find_index` found, some at a time.

    Raises:
        CorpusError: an index with other columns, or damaged.
    """
    if isinstance(found, pa.Table):
        yield from found.to_batches()
        return
    try:
        with pq.ParquetFile(found) as file:
            if not file.schema_arrow.remove_metadata().equals(schema.INDEX):
                raise pa.ArrowInvalid("it has other columns")
            yield from file.iter_batches(INDEX_ROWS)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise _no_index(found, error) from None


def _tars(path: Path) -> list[Path]:
    folder = shards_folder(path)
    tars = sorted(folder.glob("*.tar")) if folder.is_dir() else []
    if not tars:
        raise InputError(f"{path}: no shards here; give a corpus or a folder with *.tar files")
    return tars


def _read_index(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, schema=schema.INDEX)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise _no_index(path, error) from None


def _no_index(path: Path, error: Exception) -> CorpusError:
    first = str(error).splitlines()[0]
    return CorpusError(f"{path}: not an index: {first}; run `wit shards` again")
