"""The models that predict captions, beside plain definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from train.config import ModelConfig
from train.model import predictive
from train.model.predictive import BagOfWords, Captioner, new_model

VOCAB, START, END = 90, 88, 89
CAPTIONS = torch.tensor(
    [
        [START, 5, 7, 5, END, 0, 0, 0],
        [START, 0, 3, 0, 9, 9, 4, END],  # 0 is a token of the caption here, and padding elsewhere
        [START, END, 0, 0, 0, 0, 0, 0],
    ]
)


def pictures(count: int) -> Tensor:
    make = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, 32, 32), generator=make, dtype=torch.uint8)


def model(tiny: dict[str, Any], objective: str, tower: str = "vit") -> Any:
    torch.manual_seed(0)
    if tower == "resnet":
        tiny = {"name": "tiny-resnet", "width": 8, "context_length": 16}
    values = {**tiny, "image_size": 32, "objective": objective, "dropout": 0.0}
    return new_model(ModelConfig.model_validate(values), VOCAB)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_bag_of_words_is_an_even_softmax_over_the_different_tokens(tiny, tower: str) -> None:
    words = model(tiny, "bag_of_words", tower)
    assert isinstance(words, BagOfWords)
    words.eval()
    img_BCSS = pictures(3)
    loss_B, hit_B = words(img_BCSS, CAPTIONS)
    logits_BV = words.words(words.encode_image(img_BCSS))
    for row, own in enumerate([{5, 7}, {0, 3, 9, 4}]):
        target_V = torch.zeros(VOCAB, dtype=torch.float)
        target_V[list(own)] = 1 / len(own)
        expected = F.cross_entropy(logits_BV[row], target_V)
        torch.testing.assert_close(loss_B[row], expected)
        assert bool(hit_B[row]) == (int(logits_BV[row].argmax()) in own)
    assert loss_B[2] == 0
    torch.testing.assert_close(words.score(img_BCSS, CAPTIONS).diagonal(), -loss_B)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_caption_loss_is_the_likelihood_of_the_caption_and_its_end(tiny, tower: str) -> None:
    writer = model(tiny, "caption", tower)
    assert isinstance(writer, Captioner)
    writer.eval()
    img_BCSS = pictures(3)
    loss_B, _ = writer(img_BCSS, CAPTIONS)
    prefix_BND = writer.image_projection(writer.visual.places(img_BCSS))
    for row, length in enumerate((5, 8, 2)):
        read_L = CAPTIONS[row, : length - 1]
        text_LD = writer.token_embedding(read_L) + writer.positional_embedding[: length - 1]
        x_1ND = torch.cat([prefix_BND[row], text_LD])[None]
        out_LD = writer.ln_final(writer.transformer(x_1ND, causal=True)[0, -(length - 1) :])
        logits_LV = out_LD @ writer.token_embedding.weight.T
        nll = F.cross_entropy(logits_LV, CAPTIONS[row, 1:length], reduction="sum")
        torch.testing.assert_close(loss_B[row], nll, rtol=1e-5, atol=1e-5)
    score_BM = writer.score(img_BCSS, CAPTIONS)
    torch.testing.assert_close(score_BM.diagonal(), -loss_B)
    single_B1 = torch.cat([writer.score(img_BCSS, CAPTIONS[i : i + 1]) for i in range(3)], dim=1)
    torch.testing.assert_close(score_BM, single_B1)


def test_logits_in_parts_are_the_same_with_gradients(tiny, monkeypatch) -> None:
    writer = model(tiny, "caption")
    results = []
    for held in (1000, 3):
        monkeypatch.setattr(predictive, "ROWS", held)
        loss = writer(pictures(3), CAPTIONS)[0].sum()
        results.append([loss, *torch.autograd.grad(loss, list(writer.parameters()))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_places_begin_with_the_feature_of_the_picture(tiny, tower: str) -> None:
    visual = model(tiny, "caption", tower).eval().visual
    img_BCSS = pictures(2)
    torch.testing.assert_close(visual.places(img_BCSS)[:, 0], visual(img_BCSS))


@pytest.mark.parametrize("objective", ["bag_of_words", "caption"])
def test_every_parameter_gets_a_gradient(tiny, objective: str) -> None:
    """Data-parallel training waits for all of them."""
    for tower in ("vit", "resnet"):
        net = model(tiny, objective, tower)
        net(pictures(3), CAPTIONS)[0].sum().backward()
        assert [name for name, p in net.named_parameters() if p.grad is None] == []
