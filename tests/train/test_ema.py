"""The running mean of the weights: its value, its place in a run, and reading it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from train import checkpoint, load_model
from train.ema import EMA
from train.loop import train
from wit.errors import CheckpointError


def state(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    found = checkpoint.load(run)
    assert found is not None
    return found.state


def test_it_is_the_mean_that_the_formula_gives() -> None:
    layer = nn.BatchNorm1d(1)
    ema, expected = EMA(layer, 0.7), 1.0
    for step, value in enumerate([3.0, -1.0, 5.0, 2.0] * 5, 1):
        nn.init.constant_(layer.weight, value)
        layer.num_batches_tracked.fill_(step)
        ema.update(step)
        decay = min(0.7, step / (step + 10))
        expected = decay * expected + (1 - decay) * value
    assert ema.model.weight.item() == pytest.approx(expected, rel=1e-5)  # type: ignore[union-attr, operator]
    assert ema.model.num_batches_tracked.item() == 20  # type: ignore[union-attr, operator]
    assert not ema.model.training


def test_a_run_keeps_it_resumes_it_and_it_is_read_by_its_name(make_config, tmp_path) -> None:
    optim = {"lr": 3e-3, "ema": 0.8}
    whole = make_config(run=tmp_path / "whole", optim=optim, loop__keep=9)
    assert train(whole) == 0
    cut = whole.model_copy(update={"run": tmp_path / "cut"})
    shutil.copytree(whole.run, cut.run)
    for path in (*(cut.run / "checkpoints").glob("*[128].*"), cut.run / "done.json"):
        path.unlink()
    assert train(cut) == 0
    expected, got = state(whole.run), state(cut.run)
    for part in ("model", "ema"):
        assert all(torch.equal(expected[part][n], got[part][n]) for n in expected[part])
    plain = make_config(run=tmp_path / "plain", optim={"lr": 3e-3})
    assert train(plain) == 0
    trained = state(plain.run)["model"]
    assert all(torch.equal(trained[n], expected["model"][n]) for n in trained), "it changed them"

    mean, last = load_model(whole.run / "ema"), load_model(whole.run)
    assert torch.equal(mean.clip.visual.proj, expected["ema"]["visual.proj"])  # type: ignore[arg-type]
    assert torch.equal(last.clip.visual.proj, expected["model"]["visual.proj"])  # type: ignore[arg-type]
    assert mean.fingerprint != last.fingerprint
    assert "running mean" in mean.source
    with pytest.raises(CheckpointError, match="no running mean of weights"):
        load_model(plain.run / "ema")
