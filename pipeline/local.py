"""Images of a local folder, read as carefully as those of the web."""

from __future__ import annotations

from pathlib import Path

from pipeline.guard import FetchError
from wit.schema import Reason


def read_local(root: Path, relative: str, max_bytes: int) -> bytes:
    """The bytes of a regular file under `root`; a link or `..` that leads out is refused.

    Raises:
        FetchError: NO_FILE or TOO_MANY_BYTES.
    """
    base = root.resolve()
    try:
        path = (base / relative).resolve(strict=True)
        if not path.is_relative_to(base) or not path.is_file():
            raise FetchError(Reason.NO_FILE)
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError, RuntimeError):  # missing, unreadable, a null byte, a link loop
        raise FetchError(Reason.NO_FILE) from None
    if len(data) > max_bytes:
        raise FetchError(Reason.TOO_MANY_BYTES)
    return data
