from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from wit.errors import SampleError
from wit.index_cache import OnBad, cache_folder
from wit.shard import index_shard, load_index


@pytest.fixture
def tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two foreign tars, with one sample each; the second has another without a caption."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "tars"
    folder.mkdir()
    for name, members in (("0.tar", ["a.jpg", "a.txt"]), ("1.tar", ["b.jpg", "b.txt", "c.jpg"])):
        with tarfile.open(folder / name, "w") as tar:
            for member in members:
                info = tarfile.TarInfo(member)
                info.size = 4
                tar.addfile(info, io.BytesIO(b"data"))
    return folder


class Scans:
    """Counts the tars that are read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, path: Path, on_bad: OnBad | None = None) -> pa.Table:
        self.read.append(path.name)
        return index_shard(path, on_bad)


def test_tars_are_read_once(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = Scans()
    monkeypatch.setattr("wit.shard.index_shard", scans)
    bad: list[SampleError] = []
    first = load_index(tars, bad.append)
    assert scans.read == ["0.tar", "1.tar"]
    assert [(error.key, error.reason) for error in bad] == [("c", "no_caption")]
    again = load_index(tars, bad.append)
    assert again.equals(first)
    assert scans.read == ["0.tar", "1.tar"]
    assert [error.key for error in bad] == ["c", "c"]  # counted in every run
    with pytest.raises(SampleError, match="no_caption"):
        load_index(tars)
    os.utime(tars / "0.tar", ns=(1, 1))
    load_index(tars, bad.append)
    assert len(scans.read) == 4


def test_a_damaged_or_forbidden_cache_is_no_obstacle(tars: Path) -> None:
    bad: list[SampleError] = []
    first = load_index(tars, bad.append)
    (file,) = cache_folder().iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    assert load_index(tars, bad.append).equals(first)
    file.unlink()
    cache_folder().rmdir()
    cache_folder().write_text("a file is in the way", "utf-8")
    assert load_index(tars, bad.append).equals(first)
    assert len(bad) == 3
