"""Micro-batches beside the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from train.accumulate import accumulate
from train.config import ModelConfig
from train.loop import train
from train.loss import contrastive_loss
from train.model import CLIP
from wit.errors import ConfigError

OFF = torch.autocast("cpu", torch.bfloat16, enabled=False)


def batch(rows: int) -> tuple[Tensor, Tensor]:
    make = torch.Generator().manual_seed(1)
    img_bCSS = torch.randint(0, 256, (rows, 3, 16, 16), generator=make, dtype=torch.uint8)
    return img_bCSS, torch.randint(1, 90, (rows, 12), generator=make)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def same(loss: Tensor) -> Tensor:
    return loss


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_micro_batches_give_the_gradient_of_the_whole_batch(tiny, parts: int) -> None:
    torch.manual_seed(0)
    model = CLIP(ModelConfig(**{**tiny, "dropout": 0.0}), 90)
    img, tokens = batch(24)
    loss = contrastive_loss(*model(img, tokens))
    loss.backward()
    whole = gradients(model)
    model.zero_grad()
    image, _, got = accumulate(model, img, tokens, parts, OFF, contrastive_loss, same)
    assert image.shape == (24, 16)
    assert got.item() == pytest.approx(loss.item(), abs=1e-6)
    parted = gradients(model)
    assert parted.keys() == whole.keys()
    for name, grad in whole.items():
        assert (parted[name] - grad).norm() <= 1e-6 * max(1.0, grad.norm().item()), name


def test_both_passes_see_the_same_dropout_and_others_go_on(tiny) -> None:
    """The gradient is that of the loss that was computed: equal to one graph over all parts."""
    torch.manual_seed(0)
    model = CLIP(ModelConfig(**{**tiny, "dropout": 0.3}), 90)
    img, tokens = batch(12)
    torch.manual_seed(5)
    graphs = [model(i, t) for i, t in zip(img.chunk(3), tokens.chunk(3), strict=True)]
    expected_next = torch.rand(3)
    features = [torch.cat([graph[side] for graph in graphs]) for side in (0, 1)]
    contrastive_loss(*features, model.logit_scale).backward()
    whole = gradients(model)
    model.zero_grad()
    torch.manual_seed(5)
    accumulate(model, img, tokens, 3, OFF, contrastive_loss, same)
    assert torch.equal(torch.rand(3), expected_next)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, whole[name], rtol=1e-5, atol=1e-7)


def test_batch_norm_counts_each_micro_batch_once(tiny) -> None:
    model = CLIP(ModelConfig(**{**tiny, "stem_norm": "batch"}), 90)
    accumulate(model, *batch(12), 3, OFF, contrastive_loss, same)
    seen = [b.item() for name, b in model.named_buffers() if name.endswith("batches_tracked")]
    assert seen == [3]


def test_a_scaled_loss_scales_the_gradient_and_is_told_as_it_is(tiny) -> None:
    model = CLIP(ModelConfig(**{**tiny, "dropout": 0.0}), 90)
    _, _, plain = accumulate(model, *batch(12), 3, OFF, contrastive_loss, same)
    expected = gradients(model)
    model.zero_grad()
    _, _, loss = accumulate(model, *batch(12), 3, OFF, contrastive_loss, lambda x: 1024 * x)
    assert torch.equal(loss, plain)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad / 1024, expected[name], rtol=1e-5, atol=1e-7)


def test_more_micro_batches_than_pairs_are_refused(make_config) -> None:
    with pytest.raises(ConfigError, match="accumulate = 17 is more than the 16 pairs"):
        train(make_config(accumulate=17))
