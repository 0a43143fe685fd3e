"""Where what is embedded lies: folders of pictures, tars of anyone, lists of captions.

Headers, names and captions are read, pictures are not: each sample knows its file and offset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from wit.errors import InputError
from wit.shard import Member, read_caption, read_groups, read_member, shard_folders

What = Literal["images", "captions"]
IMAGES = ("jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff")
COLUMNS = ("caption", "text", "TEXT")
LARGEST_CAPTION = 1 << 20  # bytes of a member that is read as one


@dataclass(frozen=True, slots=True)
class Item:
    """One picture or caption.

    Attributes:
        key: its name in the output: path in the folder, key in the tar, or number of the row.
        file: where it lies.
        offset, size: bytes of a picture in its file; size -1: all of it.
        text: a caption, of captions.
        reason: why it can't be used, if that is known already.
        uid: identity of the pair, of samples of a corpus.
    """

    key: str
    file: Path
    offset: int = 0
    size: int = -1
    text: str | None = None
    reason: str | None = None
    uid: str | None = None

    def read(self) -> bytes:
        """The encoded picture."""
        with self.file.open("rb") as file:
            return file.read() if self.size < 0 else read_member(file, self.offset, self.size)


def items(path: Path, what: What | None, column: str | None) -> tuple[list[Item], What]:
    """Every picture or caption of an input, in a fixed order.

    Args:
        path: a corpus (held-out pairs follow the others), a folder of tars or one tar; a folder of
            pictures, or one picture; a file of captions (.txt, one a line; .parquet, .csv, .tsv,
            .jsonl).
        what: of tars; None: their pictures.
        column: of captions in a table; None: the first of `COLUMNS` that is there.

    Raises:
        InputError: nothing there, or nothing that can be embedded.
        CorpusError: a damaged tar.
    """
    folders = shard_folders(path) if path.is_dir() else []
    tars = [tar for folder in folders for tar in sorted(folder.glob("*.tar"))]
    if path.suffix == ".tar":
        tars = [path]
    suffix = path.suffix.lower()[1:]
    if tars:
        what = what or "images"
        uids = _uids(folders)
        found = [
            replace(item, uid=uids.get(item.key)) if uids else item
            for tar in tars
            for item in _tar(tar, what)
        ]
    elif path.is_dir() or suffix in IMAGES:
        what, found = _only("images", what, path), list(_pictures(path))
    elif path.is_file():
        what, found = _only("captions", what, path), list(_captions(path, column))
    else:
        raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError(f"{path}: holds no {what}")
    return found, what


def digest(found: list[Item]) -> str:
    """16 hex digits over names, places, captions, and times of change of whole files."""
    state = hashlib.sha256()
    times: dict[Path, int] = {}
    for item in found:
        if item.file not in times:
            times[item.file] = item.file.stat().st_mtime_ns
        parts = (item.key, item.file.name, item.offset, item.size, item.text, item.reason)
        state.update(repr((*parts, times[item.file])).encode())
    return state.hexdigest()[:16]


def _only(has: What, wanted: What | None, path: Path) -> What:
    if wanted not in (None, has):
        raise InputError(f"{path}: holds {has}, not {wanted}; leave --what out")
    return has


def _pictures(path: Path) -> Iterator[Item]:
    if path.is_file():
        yield Item(path.name, path)
        return
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        hidden = any(part.startswith(".") for part in name.parts)
        if not hidden and file.suffix.lower()[1:] in IMAGES and file.is_file():
            yield Item(name.as_posix(), file)


def _uids(folders: list[Path]) -> dict[str, str]:
    """Key -> uid of the pair, of a corpus; empty of other tars."""
    found: dict[str, str] = {}
    for index in (folder / "index.parquet" for folder in folders):
        if index.is_file():
            table = pq.read_table(index, columns=["key", "uid"])
            pairs = zip(table["key"].to_pylist(), table["uid"].to_pylist(), strict=True)
            found |= {key: uid for key, uid in pairs if uid is not None}
    return found


def _tar(tar: Path, what: What) -> Iterator[Item]:
    with tar.open("rb") as file:

        def read(member: Member) -> bytes:
            if member.size > LARGEST_CAPTION:
                raise ValueError
            return read_member(file, member.offset, member.size)

        for key, group in read_groups(tar):
            if what == "captions":
                yield _tar_caption(tar, key, group, read)
                continue
            image = next((group[ext] for ext in IMAGES if ext in group), None)
            if image is None:
                yield Item(key, tar, reason="no_image")
            else:
                yield Item(key, tar, image.offset, image.size)


def _tar_caption(
    tar: Path, key: str, group: dict[str, Member], read: Callable[[Member], bytes]
) -> Item:
    ext = next((ext for ext in ("txt", "json") if ext in group), None)
    if ext is None:
        return Item(key, tar, reason="no_caption")
    try:
        return Item(key, tar, text=read_caption(ext, read(group[ext])))
    except ValueError:
        return Item(key, tar, reason="bad_caption")


def _captions(path: Path, column: str | None) -> Iterator[Item]:
    if path.suffix == ".txt":
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from None
        texts: list[Any] = list(lines)
    else:
        table = _table(path)
        names = [column] if column else [name for name in COLUMNS if name in table.column_names]
        if not names or names[0] not in table.column_names:
            raise InputError(
                f"{path}: no column {column or ' or '.join(COLUMNS)}; it has"
                f" {', '.join(table.column_names)}: name one as --column"
            )
        texts = table[names[0]].to_pylist()
    for number, text in enumerate(texts):
        if isinstance(text, str):
            yield Item(str(number), path, text=text)
        else:
            reason = "no_caption" if text is None else "bad_caption"
            yield Item(str(number), path, reason=reason)


def _table(path: Path) -> pa.Table:
    try:
        match path.suffix.lower():
            case ".parquet":
                return pq.read_table(path)
            case ".csv":
                return pa.csv.read_csv(path)
            case ".tsv":
                return pa.csv.read_csv(path, parse_options=pa.csv.ParseOptions(delimiter="\t"))
            case ".json" | ".jsonl":
                return pa.json.read_json(path)
    except (pa.ArrowInvalid, OSError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: can't be read: {first}") from None
    raise InputError(
        f"{path}: neither pictures nor captions: give a folder of pictures, tars, or .txt,"
        " .parquet, .csv, .tsv, .jsonl"
    )
