"""What the user's files hold: their sha256, remembered so that a second run reads them once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.context import LocalImage
from pipeline.guard import FetchError
from pipeline.local import read_local
from wit.config import write_json
from wit.errors import InputError

_IMAGES = "local images"  # their entry in the cache, between absolute paths


class InputDigests:
    """sha256 of input files, cached by path, size and time of change."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        try:
            self._known: dict[str, dict[str, Any]] = json.loads(cache.read_text("utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            self._known = {}

    def __call__(self, path: Path) -> str:
        """The sha256 of a file.

        Raises:
            InputError: the file is missing or unreadable.
        """
        try:
            state = path.stat()
            mark = {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
            key = str(path.resolve())
            known = self._known.get(key, {})
            if {name: known.get(name) for name in mark} == mark:
                return str(known["sha256"])
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}: check the path") from None
        self._known[key] = {**mark, "sha256": digest}
        write_json(self._known, self._cache)
        return digest

    def images(self, listed: Sequence[LocalImage], max_bytes: int) -> str:
        """One sha256 over the paths and contents of local images, as the download reads them.

        They are read again only when a path, size or time of change differs. Times and folders
        are not in the result: it is the same wherever the same images lie.
        """
        state = hashlib.sha256(f"{max_bytes}".encode())
        for image in listed:
            state.update(json.dumps([image.source, image.path, *_mark(image)]).encode())
        known = self._known.get(_IMAGES, {})
        if known.get("state") == state.hexdigest():
            return str(known["sha256"])
        whole = hashlib.sha256()
        for image in listed:
            try:
                held = hashlib.sha256(read_local(image.root, image.path, max_bytes)).hexdigest()
            except FetchError as error:
                held = error.reason.value
            whole.update(json.dumps([image.source, image.path, held]).encode())
        self._known[_IMAGES] = {"state": state.hexdigest(), "sha256": whole.hexdigest()}
        write_json(self._known, self._cache)
        return whole.hexdigest()


def _mark(image: LocalImage) -> tuple[int, int]:
    try:
        state = (image.root / image.path).stat()
    except (OSError, ValueError):  # missing, a null byte: the download says so
        return (-1, -1)
    return (state.st_size, state.st_mtime_ns)
