"""The plan beside the paper's figures, and beside what autograd is seen to keep."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from train.config import ModelConfig
from train.model.clip import CLIP
from train.plan import CARDS, Run, image_activations, text_activations
from train.plan_command import CARD, PlanConfig, main, plan
from wit.errors import ConfigError


def config(**options: Any) -> PlanConfig:
    return PlanConfig.model_validate(options)


@pytest.mark.parametrize(
    ("name", "cards", "days", "utilisation"),
    [("RN50x64", 592, 18, 0.18), ("ViT-L/14", 256, 12, 0.2)],
)
def test_the_days_of_the_paper(name: str, cards: int, days: int, utilisation: float) -> None:
    found = plan(config(model={"name": name}, card="V100", cards=cards, utilisation=utilisation))
    assert found["hours"] / 24 == pytest.approx(days, rel=0.05)
    assert found["steps"] == 390_625  # 32 epochs of 400 million in batches of 32,768
    assert found["card_hours"] == pytest.approx(24 * days * cards, rel=0.05)


def kept(model: CLIP, tower: str, rows: int) -> int:
    """Bytes of what autograd keeps; of each storage once."""
    seen: dict[int, tuple[int, Tensor]] = {}

    def note(x: Tensor) -> Tensor:
        seen[x.untyped_storage().data_ptr()] = (x.untyped_storage().nbytes(), x)
        return x

    tokens_BL = torch.randint(0, 500, (rows, 32))
    tokens_BL[:, -1] = 599
    img_BCSS = torch.randn(rows, 3, 64, 64)
    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(note, lambda x: x),
    ):
        _ = model.encode_image(img_BCSS) if tower == "image" else model.encode_text(tokens_BL)
    return sum(size for size, _ in seen.values())


SMALL_VIT = {
    "name": "ViT-B/32", "image_size": 64, "patch": 8, "embed_dim": 64,
    "width": 128, "heads": 2, "layers": 4, "text_width": 128, "text_heads": 2, "text_layers": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        SMALL_VIT,
        SMALL_VIT | {"activation": "gelu"},
        {"name": "tiny"},
        {"name": "tiny-resnet"},
        {"name": "RN50", "image_size": 64, "width": 16},
    ],
    ids=["quick_gelu", "gelu", "tiny", "tiny-resnet", "RN50"],
)
def test_activations_are_what_autograd_keeps(options: dict[str, Any]) -> None:
    model_config = ModelConfig.model_validate(options)
    model = CLIP(model_config, 600)
    for tower, expected in (
        ("image", image_activations(model_config)),
        ("text", text_activations(model_config, 32)),
    ):
        # weights and their bf16 copies are kept too, whatever the number of rows
        one = (kept(model, tower, 6) - kept(model, tower, 2)) / 4
        assert one == pytest.approx(expected, rel=0.1)


def test_every_card_can_be_named() -> None:
    assert get_args(CARD) == tuple(CARDS)


def run(**options: Any) -> Run:
    values: dict[str, Any] = {
        "model": ModelConfig.model_validate({"name": "ViT-L/14"}),
        "samples": 1e9,
        "batch": 32_768,
        "cards": 64,
        "card": CARDS["A100-80GB"],
        "utilisation": 0.3,
        "caption_tokens": 77,
    }
    return Run(**values | options)


def test_what_each_choice_changes() -> None:
    plain = run()
    assert run(cards=128).hours == pytest.approx(plain.hours / 2)
    assert run(sharded=True).state_bytes == pytest.approx(plain.state_bytes / 64)
    less = run(recompute=True)
    assert less.hours == pytest.approx(plain.hours * 4 / 3, rel=0.01)
    assert less.bytes_per_pair < plain.bytes_per_pair / 4
    assert less.largest_share > plain.largest_share
    assert run(caption_tokens=20).flops < plain.flops
    assert run(card=CARDS["T4"]).largest_share < plain.largest_share
    share = plain.largest_share
    full = run(batch=share * 64)
    assert full.card_bytes <= 0.95 * full.card.memory
    assert run(batch=2 * share * 64).card_bytes > full.card.memory


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model.name", "ViT-B/16", "--cards", "16", "--price", "2"]) == 0
    text = capsys.readouterr().out
    for word in ("operations", "days on 16 x H100", "memory of a card", "storage", "feed"):
        assert word in text
    assert main(["--model.name", "ViT-B/16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["corpus_bytes"] == 400e6 * 30e3
    assert found["cost"] is None
    with pytest.raises(ConfigError, match="card"):
        main(["--card", "H10"])
