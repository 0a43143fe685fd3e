"""AdamW's groups, the schedule as a function, the clip of the scale."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.config import ModelConfig, OptimConfig
from train.model.clip import CLIP
from train.model.predictive import new_model
from train.optim import adamw, clip_scale, learning_rate, parameter_groups, set_rate


def test_decay_is_on_weights_and_not_on_gains_and_biases(tiny: dict[str, Any]) -> None:
    model = CLIP(ModelConfig(**tiny), 100)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, free = (
        {names[id(p)] for p in group["params"]}
        for group in adamw(model, OptimConfig()).param_groups
    )
    assert decayed | free == set(names.values())
    assert all(not n.endswith("bias") and "ln_" not in n for n in decayed)
    assert {"token_embedding.weight", "visual.proj", "visual.conv1.weight"} <= decayed
    assert {"logit_scale", "ln_final.weight", "visual.class_embedding"} <= free
    assert {"visual.stem.1.weight", "visual.stem.1.bias"} <= free


def test_one_step_is_the_textbooks() -> None:
    layer = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(layer.weight, 2.0)
    torch.nn.init.constant_(layer.bias, 1.0)
    config = OptimConfig(lr=0.1, weight_decay=0.2, eps=1e-6)
    layer(torch.tensor([[3.0]])).sum().backward()
    adamw(layer, config).step()
    assert layer.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.2) - 0.1, abs=1e-6)
    assert layer.bias.item() == pytest.approx(1.0 - 0.1, abs=1e-6)


@given(st.integers(1, 5000), st.integers(0, 3000), st.floats(0, 0.5))
def test_the_schedule_rises_to_the_peak_and_falls_to_the_end(steps, warmup, final) -> None:
    config = OptimConfig(lr=1e-3, warmup=warmup, final_lr=final)
    top = min(warmup, steps // 10)
    rates = [learning_rate(step, steps, config) for step in range(0, steps, max(1, steps // 50))]
    assert all(0 <= rate <= config.lr * (1 + 1e-12) for rate in rates)
    assert learning_rate(top, steps, config) == pytest.approx(config.lr)
    after = [learning_rate(step, steps, config) for step in range(top, steps)][:200]
    assert after == sorted(after, reverse=True)
    assert learning_rate(steps, steps, config) == pytest.approx(config.lr * final, abs=1e-12)


def test_the_papers_figures() -> None:
    config = OptimConfig()
    assert learning_rate(0, 390_000, config) == pytest.approx(5e-4 / 2000)
    assert learning_rate(1999, 390_000, config) == pytest.approx(5e-4)
    assert learning_rate(196_000, 390_000, config) == pytest.approx(2.5e-4, rel=1e-6)


def test_the_scale_is_clipped_at_100() -> None:
    scale = torch.nn.Parameter(torch.tensor(5.0))
    clip_scale(scale, 100.0)
    assert scale.item() == pytest.approx(math.log(100))
    low = torch.nn.Parameter(torch.tensor(1.0))
    clip_scale(low, 100.0)
    assert low.item() == 1.0


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_each_block_learns_slower_than_the_one_above(tiny: dict[str, Any], tower: str) -> None:
    config = ModelConfig(**tiny)
    if tower == "resnet":
        config = ModelConfig(name="tiny-resnet", width=8, image_size=32, context_length=16)
    model = CLIP(config, 100)
    groups = parameter_groups(model, 0.2, 0.5)
    names = {id(p): name for name, p in model.named_parameters()}
    factor = {names[id(p)]: group["factor"] for group in groups for p in group["params"]}
    assert factor.keys() == set(names.values())
    assert factor["logit_scale"] == factor["text_projection"] == factor["ln_final.bias"] == 1
    last = config.text_layers - 1
    assert factor[f"transformer.resblocks.{last}.mlp.c_fc.weight"] == 0.5
    assert factor["transformer.resblocks.0.ln_1.weight"] == 0.5**config.text_layers
    assert factor["token_embedding.weight"] == 0.5 ** (config.text_layers + 1)
    if tower == "vit":
        assert factor["visual.proj"] == factor["visual.ln_post.weight"] == 1
        assert factor["visual.transformer.resblocks.1.attn.in_proj_bias"] == 0.5
        assert factor["visual.conv1.weight"] == factor["visual.class_embedding"] == 0.5**3
    else:
        assert factor["visual.attnpool.c_proj.weight"] == 1
        assert factor["visual.layer4.0.conv1.weight"] == 0.5
        assert factor["visual.layer1.0.bn1.weight"] == 0.5**4
        assert factor["visual.conv1.weight"] == 0.5**5
    decays = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    assert "visual.conv1.weight" in decays
    assert "ln_final.bias" not in decays


def test_the_rate_of_a_group_is_its_factor_times_the_rate(tiny: dict[str, Any]) -> None:
    optimizer = adamw(CLIP(ModelConfig(**tiny), 100), OptimConfig(layer_decay=0.9))
    set_rate(optimizer, 0.1)
    assert {round(group["lr"], 9) for group in optimizer.param_groups} == {
        round(0.1 * 0.9**depth, 9) for depth in range(4)
    }
    plain = adamw(CLIP(ModelConfig(**tiny), 100), OptimConfig())
    assert len(plain.param_groups) == 2


@pytest.mark.parametrize("objective", ["bag_of_words", "caption", "sigmoid"])
def test_layer_decay_knows_every_objective(tiny: dict[str, Any], objective: str) -> None:
    model = new_model(ModelConfig(**tiny, objective=objective), 100, 0.07, -10.0)
    groups = parameter_groups(model, 0.1, 0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert {group["factor"] for group in groups} >= {1.0, 0.5}
