"""Position embeddings for another picture size, and runs that start from another's weights."""

from __future__ import annotations

import ast
import importlib.util
import logging
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from train import checkpoint, load_model
from train.config import ModelConfig, TrainConfig
from train.loop import train
from train.model.resize import resize_positions
from wit.errors import CheckpointError

Make = Callable[..., TrainConfig]
NAME = "visual.positional_embedding"


def open_clips() -> Callable[..., None]:
    """open_clip's resize_pos_embed, the function alone: its module needs timm."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs open_clip_torch (pip install --no-deps open_clip_torch)")
    tree = ast.parse((Path(spec.submodule_search_locations[0]) / "model.py").read_text("utf-8"))
    wanted = [n for n in tree.body if getattr(n, "name", "") == "resize_pos_embed"]
    names: dict[str, Any] = {"torch": torch, "F": F, "math": math, "logging": logging}
    names["to_2tuple"] = lambda x: x if isinstance(x, tuple) else (x, x)
    exec(compile(ast.Module(wanted, []), "open_clip", "exec"), names)
    found: Callable[..., None] = names["resize_pos_embed"]
    return found


@pytest.mark.parametrize(("before", "after"), [(16, 24), (24, 16), (7, 12), (16, 16)])
def test_a_vit_equals_open_clip_to_the_bit(before: int, after: int) -> None:
    position_ND = torch.randn(before**2 + 1, 8, generator=torch.Generator().manual_seed(0))
    state = {NAME: position_ND, "visual.proj": torch.ones(8, 4)}
    config = ModelConfig(name="ViT-L/14", image_size=14 * after)
    got = resize_positions(state, config)
    theirs = {NAME: position_ND.clone()}
    open_clips()(theirs, SimpleNamespace(visual=SimpleNamespace(grid_size=(after, after))))
    assert torch.equal(got[NAME], theirs[NAME])
    assert torch.equal(got[NAME][0], position_ND[0])
    assert got["visual.proj"] is state["visual.proj"]
    assert state[NAME] is position_ND


def test_a_resnets_attention_pool_is_resized_alike() -> None:
    name = "visual.attnpool.positional_embedding"
    position_ND = torch.randn(7**2 + 1, 8, dtype=torch.float16)
    got = resize_positions({name: position_ND}, ModelConfig(name="RN50", image_size=288))[name]
    assert (got.shape, got.dtype) == ((9**2 + 1, 8), torch.float16)
    as_vit = ModelConfig(name="ViT-B/32", image_size=288)
    assert torch.equal(got, resize_positions({NAME: position_ND}, as_vit)[NAME])


def test_what_is_not_a_grid_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"\[49, 8\] is not of a square grid"):
        resize_positions({NAME: torch.zeros(49, 8)}, ModelConfig(name="ViT-B/32"))


def weights(run: Path) -> dict[str, Tensor]:
    found = checkpoint.load(run)
    assert found is not None
    state: dict[str, Tensor] = found.state["model"]
    return state


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_a_run_goes_on_at_another_size(make_config: Make, tmp_path, tiny, tower: str) -> None:
    model = {**tiny, "dropout": 0.0}
    if tower == "resnet":
        model = {"name": "tiny-resnet", "width": 8, "image_size": 32, "context_length": 16}
    first = make_config(run=tmp_path / "first", steps=2, model=model)
    assert train(first) == 0
    larger = {**model, "image_size": 2 * model["image_size"]}
    still = {"lr": 1e-12, "weight_decay": 0.0}
    second = make_config(
        run=tmp_path / "second", steps=1, model=larger, init=first.run, vocab="nowhere", optim=still
    )
    assert train(second) == 0
    expected = resize_positions(weights(first.run), second.model)
    for name, tensor in weights(second.run).items():
        if "running_" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, expected[name])
    a, b = load_model(first.run), load_model(second.run)
    assert torch.equal(a.tokenize(["a red square"]), b.tokenize(["a red square"]))
    (tmp_path / "first").rename(tmp_path / "moved")  # a run with checkpoints doesn't need it
    assert train(second) == 0


def test_another_model_is_refused(make_config: Make, tmp_path: Path) -> None:
    first = make_config(run=tmp_path / "first", steps=1)
    assert train(first) == 0
    other = make_config(run=tmp_path / "b", steps=1, init=first.run, model__embed_dim=8)
    with pytest.raises(CheckpointError, match=r"text_projection is \[16, 16\] there and \[16, 8\]"):
        train(other)
    sigmoid = make_config(
        run=tmp_path / "c", steps=1, init=first.run, model__embed_dim=16, model__objective="sigmoid"
    )
    with pytest.raises(CheckpointError, match="logit_bias is missing there"):
        train(sigmoid)
    with pytest.raises(CheckpointError, match="not a run directory"):
        train(make_config(run=tmp_path / "d", steps=1, init=tmp_path / "nowhere"))
