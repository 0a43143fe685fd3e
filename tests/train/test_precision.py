"""fp16 with a scaled loss, here on a CPU: its scale is part of what is saved and resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from train import checkpoint
from train.config import TrainConfig
from train.loop import train
from train.precision import Numbers

CPU = torch.device("cpu")


def state(run: Path) -> dict[str, object]:
    found = checkpoint.load(run)
    assert found is not None
    return found.state


def test_a_run_in_fp16_resumes_to_the_last_bit(make_config, tmp_path: Path) -> None:
    def config(name: str) -> TrainConfig:
        return make_config(run=tmp_path / name, precision="fp16", loop__keep=9)

    assert train(config("whole")) == 0
    run = tmp_path / "whole"
    shutil.copytree(run, tmp_path / "cut")
    for path in (*(tmp_path / "cut" / "checkpoints").glob("*[128].*"), tmp_path / "cut/done.json"):
        path.unlink()  # of the steps 4, 8 and 12 only the first stays
    assert train(config("cut")) == 0
    whole, cut = state(run), state(tmp_path / "cut")
    assert whole["numbers"] == cut["numbers"]
    assert whole["numbers"]["_growth_tracker"] > 0  # type: ignore[index]
    assert all(
        torch.equal(value, cut["model"][name])  # type: ignore[index]
        for name, value in whole["model"].items()  # type: ignore[attr-defined]
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_an_overflow_halves_the_scale_and_leaves_the_weights() -> None:
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    numbers, before = Numbers("fp16", CPU), layer.weight.detach().clone()
    scale = numbers.state_dict()["scale"]
    for factor in (torch.inf, 1.0):
        optimizer.zero_grad()
        numbers.scaled(layer(torch.ones(1, 2)).sum() * factor).backward()
        numbers.unscale(optimizer)
        if factor == 1.0:
            assert torch.equal(layer.weight, before)
            assert torch.equal(layer.weight.grad, torch.ones(2, 2))  # type: ignore[arg-type]
        numbers.step(optimizer)
        numbers.update()
        assert numbers.state_dict()["scale"] == scale / 2
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize(("name", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_what_the_towers_compute_in(name, kind: torch.dtype) -> None:
    with Numbers(name, CPU).autocast:
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == kind
    with Numbers("auto", CPU).autocast:
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32
    assert Numbers("auto", CPU).state_dict() == {}
