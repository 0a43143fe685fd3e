from __future__ import annotations

import os
from pathlib import Path

import pytest

from wit import page
from wit.config import write_json


def test_two_writers_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, fsync, second = tmp_path / "inputs.json", os.fsync, [1]

    def another_meanwhile(handle: int) -> None:
        fsync(handle)
        if second:
            write_json(second.pop(), target)

    monkeypatch.setattr(os, "fsync", another_meanwhile)
    write_json({"first": True}, target)
    assert not second
    assert target.read_text() == '{\n "first": true\n}\n'
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    page.write(tmp_path / "page.html", "before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        page.write(tmp_path / "page.html", "after")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
