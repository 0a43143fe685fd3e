from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from train.config import TrainConfig
from train.runs_command import differences, main, runs_below
from wit.config import write_config
from wit.errors import InputError


def make(run: Path, lines: list[dict[str, Any]], done: bool = False, **options: Any) -> None:
    run.mkdir(parents=True)
    write_config(TrainConfig.model_validate({"run": run} | options), run / "config.json")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text(text + '{"step": 3, "lo', "utf-8")
    if done:
        (run / "done.json").write_text("{}", "utf-8")


def line(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "epoch": 1.0, "loss": loss, "accuracy": 0.5, "samples_per_second": 10.0}


def test_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "a", [line(1, 2.0), line(2, 3.0)], done=True)
    make(tmp_path / "deep" / "b", [], optim={"lr": 0.25})
    assert main([str(tmp_path), "--json"]) == 0
    a, b = json.loads(capsys.readouterr().out)
    assert (a["run"], a["state"]) == (str(tmp_path / "a"), "finished")
    assert (a["metrics"]["step"], a["lowest_loss"]) == (2, 2.0)
    assert (b["state"], b["metrics"], b["lowest_loss"]) == ("stopped or running", {}, None)
    assert differences([a, b]) == {"optim.lr": ["0.0005", "0.25"]}
    assert main([str(tmp_path / "a"), str(tmp_path / "deep" / "b")]) == 0
    text = capsys.readouterr().out
    assert "3.0000" in text
    assert "optim.lr" in text


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        runs_below(tmp_path / "absent")
    with pytest.raises(InputError, match="no run here"):
        runs_below(tmp_path)
    make(tmp_path / "a", [])
    (tmp_path / "a" / "config.json").write_text("[]", "utf-8")
    with pytest.raises(InputError, match="damaged"):
        main([str(tmp_path)])
