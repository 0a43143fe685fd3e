"""Optimiser states and products in fewer bits; torchao's steps run uncompiled here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from train import checkpoint, load_model, low_bit
from train.config import ModelConfig, OptimConfig
from train.loop import train
from train.model.clip import CLIP
from train.optim import adamw
from wit.errors import ConfigError

pytest.importorskip("torchao")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.load(run)
    assert found is not None
    model: dict[str, torch.Tensor] = found.state["model"]
    return model


@pytest.mark.parametrize(
    ("states", "kinds"),
    [("8bit", ("OptimState8bit", torch.float32)), ("bf16", ("Tensor", torch.bfloat16))],
)
def test_a_run_learns_and_resumes_to_the_last_bit(
    make_config, tmp_path: Path, states: str, kinds: tuple[str, torch.dtype]
) -> None:
    def run(name: str) -> Path:
        given = {"optim__states": states, "precision": "bf16", "loop__keep": 9}
        assert train(make_config(run=tmp_path / name, model__text_width=64, **given)) == 0
        return tmp_path / name

    whole = run("whole")
    shutil.copytree(whole, tmp_path / "cut")
    for path in (*(tmp_path / "cut" / "checkpoints").glob("*[128].*"), tmp_path / "cut/done.json"):
        path.unlink()  # of the steps 4, 8 and 12 only the first stays
    cut = run("cut")
    ours, theirs = weights(whole), weights(cut)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    matrix = ours["transformer.resblocks.0.mlp.c_fc.weight"]
    assert matrix.dtype == (torch.bfloat16 if states == "bf16" else torch.float32)
    assert ours["logit_scale"].dtype == torch.float32
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]
    found = checkpoint.load(whole)
    assert found is not None
    optimizer = low_bit.restored(found.state["optimizer"])
    moments = [each["exp_avg"] for each in optimizer["state"].values()]
    assert load_model(whole).encode_text(torch.ones(1, 16, dtype=torch.int64)).isfinite().all()
    assert kinds in {(type(moment).__name__, moment.dtype) for moment in moments}


def test_eight_bits_follow_the_whole_ones() -> None:
    torch.manual_seed(0)
    start = torch.randn(64, 128)
    kept = {}
    for states in ("fp32", "8bit"):
        layer = torch.nn.Linear(128, 64)
        layer.weight.data.copy_(start)
        optimizer = adamw(layer, OptimConfig(lr=1e-2, states=states))
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            optimizer.zero_grad()
            x = torch.randn(32, 128, generator=generator)
            layer(x).square().mean().backward()
            optimizer.step()
        kept[states] = layer.weight.detach() - start
    apart = (kept["8bit"] - kept["fp32"]).norm() / kept["fp32"].norm()
    assert 0 < apart < 0.05


def test_small_steps_count_on_average_in_bf16() -> None:
    """Rounded to the nearest, a weight of 1 would never move by steps of 1e-4."""
    layer = torch.nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
    torch.nn.init.ones_(layer.weight)
    optimizer = adamw(layer, OptimConfig(lr=1e-4, weight_decay=0, states="bf16"))
    for _ in range(20):
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step()
    assert layer.weight.float().mean().item() == pytest.approx(1 - 20 * 1e-4, abs=5e-4)


def test_rounding_is_the_same_in_all_processes() -> None:
    """Whatever each has drawn for its own part of the batch."""
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
        torch.nn.init.ones_(layer.weight)
        optimizer = adamw(layer, OptimConfig(lr=1e-4, states="bf16"))
        for step in range(5):
            torch.rand(seed)
            layer.weight.grad = torch.ones_like(layer.weight)
            with low_bit.rounding("bf16", 0, step, CPU):
                optimizer.step()
        found.append(layer.weight.detach())
    assert torch.equal(*found)
    assert len(found[0].unique()) > 1  # rounded, both ways


def test_weights_in_bf16_are_evaluated(make_config, corpus: Path, tmp_path: Path) -> None:
    config = make_config(optim__states="bf16", precision="bf16", validation={"corpus": str(corpus)})
    assert train(config) == 0
    rows = [json.loads(line) for line in (config.run / "metrics.jsonl").read_text().splitlines()]
    assert 0 < next(row["val/loss"] for row in rows if "val/loss" in row) < 10
    model = CLIP(config.model, 100)
    low_bit.round_weights(model)
    assert low_bit.in_fp32(model).encode_text(torch.ones(1, 8, dtype=torch.int64)).isfinite().all()
    assert model.token_embedding.weight.dtype == torch.bfloat16


def test_fp8_computes_the_same_roughly_under_the_same_names(tiny: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = CLIP(ModelConfig(**tiny), 100).eval()
    names, ids_BT = set(model.state_dict()), torch.randint(1, 99, (4, 8))
    plain_BD = model.encode_text(ids_BT)
    low_bit.use_fp8(model, CPU, emulate=True)
    layers = [x for x in model.transformer.modules() if type(x).__name__ == "Float8Linear"]
    assert len(layers) == 3 * tiny["text_layers"]
    assert set(model.state_dict()) == names
    low_BD = model.encode_text(ids_BT)
    apart = ((low_BD - plain_BD).norm() / plain_BD.norm()).item()
    assert 1e-4 < apart < 0.1
    low_BD.square().sum().backward()
    assert all(torch.isfinite(layer.weight.grad).all() for layer in layers)  # type: ignore[arg-type]


def test_what_excludes_each_other_is_one_line(make_config) -> None:
    for changes, says in (
        ({"precision": "fp8"}, "compute capability"),
        ({"precision": "fp32", "optim__states": "bf16"}, "use precision = bf16"),
    ):
        with pytest.raises(ConfigError, match=says):
            train(make_config(**changes))
    with pytest.raises(ValidationError, match=r"optim\.ema"):
        make_config(optim__states="bf16", optim__ema=0.9)
