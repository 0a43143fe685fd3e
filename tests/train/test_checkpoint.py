"""Checkpoints are whole or passed over."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from train import checkpoint
from wit.config import write_json
from wit.errors import CheckpointError


def saved(run: Path, *steps: int, keep: int = 3) -> list[Path]:
    return [
        checkpoint.save(run, step, {"step": step, "w": torch.full((50,), float(step))}, keep)
        for step in steps
    ]


def test_the_newest_is_loaded_and_old_ones_go(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    saved(tmp_path, 5, 10, 15, 20, keep=2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step_{s:08d}.{ext}" for s in (15, 20) for ext in ("json", "pt")]
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found.state["step"] == 20
    assert torch.equal(found.state["w"], torch.full((50,), 20.0))
    assert found.problems == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


def break_mark(path: Path) -> None:
    path.with_suffix(".json").write_text('{"step": 10')


@pytest.mark.parametrize("damage", [cut, flip, remove, break_mark])
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage) -> None:
    _, last = saved(tmp_path, 5, 10)
    damage(last)
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found.state["step"] == 5
    assert len(found.problems) == 1
    assert "step_00000010" in found.problems[0]
    saved(tmp_path, 7, keep=1)  # the next one replaces the damaged one, not the other way round
    after = checkpoint.load(tmp_path)
    assert after is not None
    assert (after.state["step"], after.problems) == (7, [])


def test_a_file_without_its_mark_is_no_checkpoint(tmp_path: Path) -> None:
    _, last = saved(tmp_path, 5, 10)
    last.with_suffix(".json").unlink()
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert (found.state["step"], found.problems) == (5, [])


def test_all_damaged_is_an_error_that_says_so(tmp_path: Path) -> None:
    for path in saved(tmp_path, 5, 10):
        cut(path)
    with pytest.raises(CheckpointError, match="no sound checkpoint"):
        checkpoint.load(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


def test_a_checkpoint_with_code_in_it_does_not_run(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, 5)
    torch.save({"step": Bomb()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    mark = {"step": 5, "bytes": path.stat().st_size, "sha256": digest}
    write_json(mark, path.with_suffix(".json"))
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load(tmp_path)


def test_the_writer_writes_what_was_there_when_it_was_asked(tmp_path: Path) -> None:
    weights = torch.zeros(200_000)
    with checkpoint.Writer(tmp_path, 2) as writer:
        for step in range(1, 6):
            weights.fill_(step)
            writer.save(step, {"step": step, "w": [weights]})
            weights.fill_(-1.0)
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found.state["step"] == 5
    assert torch.equal(found.state["w"][0], torch.full((200_000,), 5.0))
    assert [mark.stem[-1] for mark in checkpoint.marks(tmp_path)] == ["5", "4"]


def test_what_the_writer_can_not_write_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file is in the way")
    writer = checkpoint.Writer(tmp_path, 2)
    writer.save(1, {"step": 1})
    with pytest.raises(CheckpointError, match=r"can't be written: .*; make room"):
        writer.wait()
    writer.wait()  # it was told


def test_the_best_is_of_one_metric_and_never_nan(tmp_path: Path) -> None:
    scores = [("val/top1", 0.5), ("val/loss", 2.0), ("val/loss", math.nan), ("val/loss", 3.0)]
    for step, score in enumerate(scores):
        checkpoint.save(tmp_path, step, {"step": step}, 9, checkpoint.Score(*score))
    about = json.loads((tmp_path / "best.json").read_text())
    assert (about["step"], about["metric"]) == (1, "val/loss")


def test_what_a_kill_left_is_cleared_away(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1}, 2)
    folder = tmp_path / "checkpoints"
    for name in ("step_00000002.pt.tmp", "step_00000003.pt"):
        (folder / name).write_bytes(b"half")
    checkpoint.save(tmp_path, 4, {"step": 4}, 2)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"step_0000000{n}.{kind}" for n in (1, 4) for kind in ("json", "pt")]


@pytest.mark.parametrize(("metric", "best"), [("val/loss", 2), ("val/top1", 4)])
def test_the_best_stays_besides_the_newest(tmp_path: Path, metric: str, best: int) -> None:
    values = {1: 3.0, 2: 1.0, 3: 2.0, 4: 5.0, 5: 2.0, 6: None, 7: 4.0}
    for step, value in values.items():
        score = None if value is None else checkpoint.Score(metric, value)
        checkpoint.save(tmp_path, step, {"step": step}, 1, score)
    kept = sorted(path.stem[-1] for path in (tmp_path / "checkpoints").glob("*.pt"))
    assert kept == sorted({str(best), "7"})
    about = json.loads((tmp_path / "best.json").read_text())
    assert (about["step"], about["value"]) == (best, values[best])
    assert (tmp_path / about["checkpoint"]).is_file()
