"""The modified ResNet: published names, start and strides, equal to a plain functional one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from train import load_model
from train.config import ModelConfig, TrainConfig
from train.loop import train
from train.model.resnet import ModifiedResNet

CONFIG = ModelConfig(name="tiny-resnet", blocks=(2, 1, 2, 1), image_size=64)


def random_resnet() -> ModifiedResNet:
    """Float64, with gains, biases and running statistics that are not those of the start."""
    torch.manual_seed(0)
    model = ModifiedResNet(CONFIG).double()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim == 1:
                low = 0.5 if name.endswith(("weight", "running_var")) else -0.5
                tensor.uniform_(low, low + 1)
    return model


def plain(state: dict[str, Tensor], x: Tensor, training: bool) -> Tensor:
    """The paper's words as functions of a state dict; attention is torch's own, all queries."""

    def conv(x: Tensor, at: str, norm: str, stride: int = 1) -> Tensor:
        weight = state[f"{at}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, gain, bias = (state[f"{norm}.{name}"] for name in names)
        return F.batch_norm(x, mean.clone(), variance.clone(), gain, bias, training)

    for i in (1, 2, 3):
        x = conv(x, f"conv{i}", f"bn{i}", stride=2 if i == 1 else 1).relu()
    x = F.avg_pool2d(x, 2)
    for stage, count in enumerate(CONFIG.blocks, 1):
        for block in range(count):
            at = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            out = conv(x, f"{at}.conv1", f"{at}.bn1").relu()
            out = conv(out, f"{at}.conv2", f"{at}.bn2").relu()
            out = conv(F.avg_pool2d(out, stride), f"{at}.conv3", f"{at}.bn3")
            if f"{at}.downsample.0.weight" in state:
                x = conv(F.avg_pool2d(x, stride), f"{at}.downsample.0", f"{at}.downsample.1")
            x = (x + out).relu()
    x = x.flatten(2).permute(2, 0, 1)
    x = torch.cat([x.mean(0, keepdim=True), x]) + state["attnpool.positional_embedding"][:, None]
    pool = {name: state[f"attnpool.{name}"] for name in _names("qkv", "weight")}
    out, _ = F.multi_head_attention_forward(
        *(x, x, x, x.shape[-1], CONFIG.heads),
        in_proj_weight=None,
        in_proj_bias=torch.cat([state[f"attnpool.{name}"] for name in _names("qkv", "bias")]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=state["attnpool.c_proj.weight"],
        out_proj_bias=state["attnpool.c_proj.bias"],
        need_weights=False,
        use_separate_proj_weight=True,
        **{f"{name[0]}_proj_weight": weight for name, weight in pool.items()},
    )
    return out[0]


def _names(letters: str, kind: str) -> list[str]:
    return [f"{letter}_proj.{kind}" for letter in letters]


@pytest.mark.parametrize("training", [False, True])
def test_equals_plain_functions_with_gradients(training: bool) -> None:
    model = random_resnet().train(training)
    img_BCSS = torch.randn(3, 3, 64, 64, dtype=torch.double, requires_grad=True)
    expected = plain(dict(model.state_dict(keep_vars=True)), img_BCSS, training)
    ours = model(img_BCSS)
    torch.testing.assert_close(ours, expected)
    assert ours.shape == (3, CONFIG.embed_dim)
    weight = torch.randn_like(ours)
    inputs = [img_BCSS, *model.parameters()]
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_state_dict_has_the_published_names() -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    blocks = [
        (f"layer{stage}.{block}", block == 0)
        for stage, count in enumerate(CONFIG.blocks, 1)
        for block in range(count)
    ]
    expected = {"attnpool.positional_embedding"}
    expected |= {f"attnpool.{x}_proj.{kind}" for x in "qkvc" for kind in ("weight", "bias")}
    for at, first in [("", False), *((f"{name}.", first) for name, first in blocks)]:
        for i in (1, 2, 3):
            expected |= {f"{at}conv{i}.weight", *(f"{at}bn{i}.{kind}" for kind in norm)}
        if first:
            expected.add(f"{at}downsample.0.weight")
            expected |= {f"{at}downsample.1.{kind}" for kind in norm}
    assert set(ModifiedResNet(CONFIG).state_dict()) == expected


def test_initialisation_is_the_published_one() -> None:
    torch.manual_seed(0)
    model = ModifiedResNet(CONFIG)
    for layer in ("q_proj", "k_proj", "v_proj", "c_proj"):
        weight = model.get_parameter(f"attnpool.{layer}.weight")
        assert weight.std().item() == pytest.approx(512**-0.5, rel=0.02)
    positions = model.attnpool.positional_embedding
    assert positions.std().item() == pytest.approx(512**-0.5, rel=0.05)
    zero = {n for n, p in model.named_parameters() if n.endswith("weight") and not p.any()}
    assert zero == {n for n, _ in model.named_parameters() if ".bn3.weight" in n}


def test_a_resnet_takes_bytes_and_trains(make_config: Callable[..., TrainConfig]) -> None:
    model = {"name": "tiny-resnet", "width": 8, "image_size": 32, "context_length": 16}
    config = make_config(model=model, steps=40, optim__lr=2e-3)
    assert train(config) == 0
    rows = [line.split('"loss": ')[1] for line in _metrics(config.run)]
    losses = [float(row.split(",")[0]) for row in rows]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    loaded = load_model(config.run)
    statistics = loaded.clip.state_dict()["visual.bn1.num_batches_tracked"]
    assert statistics == 40
    img_BCSS = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = loaded.clip.visual.mean, loaded.clip.visual.std
    expected = loaded.encode_image((img_BCSS / 255 - mean) / std)
    torch.testing.assert_close(loaded.encode_image(img_BCSS), expected)


def _metrics(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text("utf-8").splitlines()
