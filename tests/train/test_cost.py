"""The figures of `wit models` beside the modules themselves, on the meta device."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from train.config import MODELS, ModelConfig
from train.cost import image_cost, parameters, text_cost
from train.model.clip import CLIP
from train.model.transformer import Transformer, take
from train.models_command import describe, main

PUBLISHED = {
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "RN50x16": 290_979_217,
    "RN50x64": 623_258_305,
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-L/14@336px": 427_944_193,
}
# Forward GFLOP per picture and caption as open_clip publishes them (docs/model_profile.csv).
# Its ResNets compute a query for every place of the last map and take one; ours compute one.
PROFILE = {
    "ViT-B/32": (8.82, 5.96),
    "ViT-B/16": (35.13, 5.96),
    "ViT-L/14": (162.03, 13.3),
    "ViT-L/14@336px": (381.92, 13.3),
    "RN50": (12.22, 5.96),
    "RN101": (19.54, 5.96),
    "RN50x4": (42.56, 9.27),
    "RN50x16": (149.39, 13.3),
    "RN50x64": (529.11, 23.55),
}


@pytest.mark.parametrize("name", MODELS)
def test_figures_are_those_of_the_module(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_tokens(tower: Transformer, x_BND, at_B, causal):  # as published: no short cut
        return take(tower(x_BND, causal), at_B).squeeze(1)

    monkeypatch.setattr(Transformer, "pooled", all_tokens)
    config = ModelConfig.model_validate({"name": name})
    with torch.device("meta"):
        model = CLIP(config, 49_408)
        img_BCSS = torch.empty(1, 3, config.image_size, config.image_size)
        tokens_BL = torch.empty(1, config.context_length, dtype=torch.long)
    assert parameters(config) == sum(p.numel() for p in model.parameters())
    for cost, encode, batch in (
        (image_cost(config), model.encode_image, img_BCSS),
        (text_cost(config), model.encode_text, tokens_BL),
    ):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            encode(batch)
        assert cost.flops == counter.get_total_flops()


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_operations_as_published(name: str) -> None:
    found = describe(name)
    config = ModelConfig.model_validate({"name": name})
    assert found["parameters"] == PUBLISHED[name]
    assert config.context_length == 77
    image, text = found["gflops_image"], found["gflops_text"]
    if config.tower == "resnet":
        places, features = (config.image_size // 32) ** 2, config.features
        image += 2 * places * features * (features + config.embed_dim) / 1e9
        image += 4 * places * (places + 1) * features / 1e9
    assert image == pytest.approx(PROFILE[name][0], rel=2e-3)
    assert text == pytest.approx(PROFILE[name][1], rel=2e-3)


def test_another_shape_and_vocabulary_count_too() -> None:
    keys = {"stem": (8, 12), "stem_strides": (1, 2), "patch": 4, "image_size": 40, "width": 32}
    config = ModelConfig.model_validate({**keys, "context_length": 11})
    with torch.device("meta"):
        model = CLIP(config, 600)
    assert parameters(config, 600) == sum(p.numel() for p in model.parameters())


def test_json_has_an_object_for_each_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(MODELS)
    by_name = {row["name"]: row for row in rows}
    large = by_name["ViT-L/14@336px"]
    assert (large["embed_dim"], large["image_size"]) == (768, 336)
    assert large["training_state_bytes"] == 4 * large["weights_fp32_bytes"]
    assert large["weights_fp32_bytes"] == 2 * large["weights_bf16_bytes"] == 4 * large["parameters"]
    assert by_name["RN50x64"]["paper_v100_hours"] == 592 * 18 * 24
    assert by_name["ViT-L/14"]["paper_v100_hours"] == 256 * 12 * 24
    assert by_name["RN50"]["paper_v100_hours"] is None
    assert by_name["tiny"]["estimated_v100_hours"] is None


def test_the_estimate_is_near_where_the_paper_has_a_figure() -> None:
    from train.models_command import PAPER_SAMPLES, PUBLISHED_V100_HOURS, _hours

    for name, hours in PUBLISHED_V100_HOURS.items():
        assert _hours(name, PAPER_SAMPLES) == pytest.approx(hours, rel=0.12)


def test_the_table_needs_no_torch_and_fits_80_columns() -> None:
    script = (
        "import sys\nfrom wit.cli import run\nrun(['models'])\nassert 'torch' not in sys.modules\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    for name, count in PUBLISHED.items():
        assert any(line.split()[:2] == [name, f"{count:,}"] for line in lines)
    assert max(map(len, lines)) <= 80
