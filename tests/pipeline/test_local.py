"""Local files: nothing outside their folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.guard import FetchError
from pipeline.local import read_local
from wit.schema import Reason

BODY = b"\xff\xd8\xff" + bytes(range(256)) * 20


def test_local_files_stay_under_their_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a.jpg").write_bytes(BODY)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "out").symlink_to(tmp_path)
    (root / "link.jpg").symlink_to(root / "in" / "a.jpg")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    assert read_local(root, "in/a.jpg", 10_000) == BODY
    assert read_local(root, "link.jpg", 10_000) == BODY
    for path in ("../secret", "out/secret", "/etc/passwd", str(tmp_path / "secret"), "none.jpg"):
        with pytest.raises(FetchError) as caught:
            read_local(root, path, 10_000)
        assert caught.value.reason is Reason.NO_FILE
    for path in ("in", "", "pipe", "loop", "a\0b", "x" * 5000):
        with pytest.raises(FetchError) as caught:
            read_local(root, path, 10_000)
        assert caught.value.reason is Reason.NO_FILE
    with pytest.raises(FetchError) as caught:
        read_local(root, "in/a.jpg", 100)
    assert caught.value.reason is Reason.TOO_MANY_BYTES
