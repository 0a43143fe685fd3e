"""The towers: sizes and names as published, and each saving equal to the plain path."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from train.config import ModelConfig
from train.model.clip import CLIP
from train.model.transformer import Attention, QuickGELU, Transformer


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ViT-B/32", 151_277_313),
        ("ViT-B/16", 149_620_737),
        ("ViT-L/14", 427_616_513),
        ("ViT-L/14@336px", 427_944_193),
    ],
)
def test_parameters_as_published(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = CLIP(ModelConfig(name=name), 49_408)  # type: ignore[arg-type]
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.positional_embedding.shape[0] == 77


def test_state_dict_has_the_published_names() -> None:
    with torch.device("meta"):
        names = set(
            CLIP(ModelConfig(name="ViT-B/32", layers=1, text_layers=1), 49_408).state_dict()
        )
    block = [
        *("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight"),
        *("attn.out_proj.bias", "ln_1.weight", "ln_1.bias", "mlp.c_fc.weight", "mlp.c_fc.bias"),
        *("mlp.c_proj.weight", "mlp.c_proj.bias", "ln_2.weight", "ln_2.bias"),
    ]
    visual = [
        *("class_embedding", "positional_embedding", "proj", "conv1.weight", "ln_pre.weight"),
        *("ln_pre.bias", "ln_post.weight", "ln_post.bias"),
        *(f"transformer.resblocks.0.{name}" for name in block),
    ]
    assert names == {
        *("positional_embedding", "text_projection", "logit_scale", "token_embedding.weight"),
        *("ln_final.weight", "ln_final.bias"),
        *(f"transformer.resblocks.0.{name}" for name in block),
        *(f"visual.{name}" for name in visual),
    }


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_torchs_own(causal: bool) -> None:
    torch.manual_seed(0)
    ours, reference = Attention(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    ours.load_state_dict(reference.state_dict())
    x_BND = torch.randn(4, 7, 24)
    mask_NN = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    expected, _ = reference(x_BND, x_BND, x_BND, attn_mask=mask_NN, need_weights=False)
    torch.testing.assert_close(ours(x_BND, causal), expected)


@pytest.mark.parametrize("causal", [False, True])
def test_pooling_one_token_equals_the_plain_path_with_gradients(causal: bool) -> None:
    torch.manual_seed(0)
    tower = Transformer(16, 3, 2, "quick_gelu", dropout=0.0).double()
    x_BND = torch.randn(5, 6, 16, dtype=torch.double, requires_grad=True)
    at_B = torch.tensor([0, 5, 2, 3, 1])
    plain = tower(x_BND, causal)[torch.arange(5), at_B]
    quick = tower.pooled(x_BND, at_B, causal)
    torch.testing.assert_close(quick, plain)
    inputs = [x_BND, *tower.parameters()]
    weight = torch.randn_like(plain)
    for a, b in zip(
        torch.autograd.grad((plain * weight).sum(), inputs),
        torch.autograd.grad((quick * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def tokens(vocab: int, context: int) -> torch.Tensor:
    """Three captions of 3, 5 and 9 ids, zero padded."""
    torch.manual_seed(1)
    out_BL = torch.zeros(3, context, dtype=torch.long)
    for row, length in zip(out_BL, (3, 5, 9), strict=True):
        row[0], row[length - 1] = vocab - 2, vocab - 1
        row[1 : length - 1] = torch.randint(1, vocab - 2, (length - 2,))
    return out_BL


def test_padding_and_what_follows_the_end_have_no_influence(tiny: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = CLIP(ModelConfig(**tiny), 100).eval()
    padded_BL = tokens(100, 16)
    plain = model.encode_text(padded_BL)
    torch.testing.assert_close(model.encode_text(padded_BL[:, :9]), plain)
    noisy_BL = padded_BL.clone()
    noisy_BL[0, 3:] = 7
    torch.testing.assert_close(model.encode_text(noisy_BL)[0], plain[0])
    changed_BL = padded_BL.clone()
    changed_BL[:, 1] = 50
    assert (model.encode_text(changed_BL) - plain).abs().amax(dim=1).gt(1e-4).all()


@pytest.mark.parametrize(
    "changes", [{}, {"pool": "mean"}, {"pool": "max"}, {"stem": (), "patch": 4}]
)
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_uint8_pictures_are_normalised_inside(changes, norm: str, tiny: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = CLIP(ModelConfig(**{**tiny, **changes, "stem_norm": norm}), 100).eval()
    img_BCSS = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    expected = model.encode_image((img_BCSS / 255 - mean) / std)
    torch.testing.assert_close(model.encode_image(img_BCSS), expected)
    channels_last = img_BCSS.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    torch.testing.assert_close(model.encode_image(channels_last), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape == (3, 16)


def test_quick_gelu_and_dropout(tiny: dict[str, Any]) -> None:
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(QuickGELU()(x), x / (1 + torch.exp(-1.702 * x)))
    torch.manual_seed(0)
    model = CLIP(ModelConfig(**{**tiny, "dropout": 0.5}), 100)
    img_BCSS = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert not torch.equal(model.encode_image(img_BCSS), model.encode_image(img_BCSS))
    model.eval()
    assert torch.equal(model.encode_image(img_BCSS), model.encode_image(img_BCSS))


def test_initialisation_of_the_text_tower_is_the_papers() -> None:
    torch.manual_seed(0)
    model = CLIP(ModelConfig(name="ViT-B/32", layers=1, text_layers=2), 2000)
    block = model.transformer.resblocks[0]
    expected = {
        model.token_embedding.weight: 0.02,
        model.positional_embedding: 0.01,
        model.text_projection: 512**-0.5,
        block.attn.in_proj_weight: 512**-0.5,  # type: ignore[union-attr]
        block.attn.out_proj.weight: (512 * 4) ** -0.5,  # type: ignore[union-attr]
        block.mlp.c_fc.weight: 1024**-0.5,  # type: ignore[union-attr]
        block.mlp.c_proj.weight: (512 * 4) ** -0.5,  # type: ignore[union-attr]
    }
    for weight, std in expected.items():
        assert weight.std().item() == pytest.approx(std, rel=0.03)  # type: ignore[union-attr, operator]
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)
