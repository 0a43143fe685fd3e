"""What a ledger gives back after a kill or a power cut at any byte."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.finish import finish
from pipeline.ledger import Ledger, read, record
from pipeline.task import Outcome

OUTCOMES = [
    (
        Outcome(3, 7, status="success", width=9, phash=2**64 - 1, final_url="http://é/"),
        b"image" * 9,
    ),
    (Outcome(3, 1, reason="timeout", final=False), None),
    (Outcome(3, 1, reason="http_404", http_status=404), None),
    (Outcome(3, 0, status="success", sha256="ab"), b"x"),
]


def fill(path: Path) -> list[int]:
    ledger, ends = Ledger(path), [0]
    for outcome, image in OUTCOMES:
        ledger.append(record(outcome, image))
        ledger.flush()
        ends.append(path.stat().st_size)
    ledger.close()
    return ends


def test_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "000003.ledger"
    fill(path)
    data = path.read_bytes()
    found = list(read(path))
    assert [outcome for outcome, _, _ in found] == [outcome for outcome, _ in OUTCOMES]
    for (_, place, _), (_, image) in zip(found, OUTCOMES, strict=True):
        assert data[place.offset : place.offset + place.size] == (image or b"")
    ledger = Ledger(path)
    ledger.close()
    assert ledger.known == {7: True, 1: True, 0: True}
    assert list(read(tmp_path / "none.ledger")) == []


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_what_is_not_whole_is_cut_and_written_again(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "000003.ledger"
    ends = fill(path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        if damage == "cut":
            path.write_bytes(whole[:at])
        else:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        sound = sum(end <= at for end in ends) - 1
        ledger = Ledger(path)
        assert path.stat().st_size == ends[sound]
        for outcome, image in OUTCOMES[sound:]:
            ledger.append(record(outcome, image))
        ledger.close()
        assert path.read_bytes() == whole


def test_all_of_a_finished_shard_is_on_disk_before_its_ledger_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folders = tmp_path / "000003.ledger", [tmp_path / name for name in ("a", "b", "times")]
    for folder in folders:
        folder.mkdir()
    ledger, synced, fsync = Ledger(path), set[int](), os.fsync
    ledger.append(record(Outcome(3, 0, reason="http_404", http_status=404), None))
    ledger.close()

    def noted(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    assert finish(path, ["http://h.test/0.jpg"], "jpg", *folders) == 3
    left = [*folders[1].iterdir(), *folders[2].iterdir(), *folders[1:]]
    assert len(left) == 6
    assert {file.name for file in left if file.stat().st_ino not in synced} == set()
