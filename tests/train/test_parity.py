"""All nine models, cut down, beside transformers and open_clip; whole ones: bench/parity.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from train.config import ModelConfig

CUT: dict[str, dict[str, Any]] = {
    "ViT-B/32": {"layers": 2, "image_size": 96},
    "ViT-B/16": {"layers": 2, "image_size": 64},
    "ViT-L/14": {"layers": 1, "image_size": 56},
    "ViT-L/14@336px": {"layers": 1, "image_size": 84},
    **{name: {"image_size": 64} for name in ("RN50", "RN101", "RN50x4")},
    "RN50x16": {"width": 48, "heads": 24, "image_size": 64},
    "RN50x64": {"width": 64, "heads": 32, "image_size": 64},
}
SMALL = 500  # tokens in the vocabulary
BLOCKS = {"RN50": (1, 2, 1, 1), "RN101": (1, 1, 2, 1), "RN50x4": (2, 1, 1, 1)}


@pytest.fixture(scope="module")
def parity() -> ModuleType:
    """bench/parity.py as a module."""
    pytest.importorskip("transformers", reason="needs transformers (extra dev)")
    path = Path(__file__).parents[2] / "bench" / "parity.py"
    spec = importlib.util.spec_from_file_location("parity", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CUT)
def test_same_weights_same_numbers(name: str, parity: ModuleType) -> None:
    values = {"name": name, "text_layers": 1, **CUT[name]}
    if name.startswith("RN"):
        if importlib.util.find_spec("open_clip") is None:
            pytest.skip("needs the file of open_clip_torch (pip install --no-deps open_clip_torch)")
        values["blocks"] = BLOCKS.get(name, (1, 1, 1, 1))
    kinds = ("fp32", "bf16") if name == "ViT-B/32" else ("fp32",)  # bf16 is slow here
    found = parity.measure(ModelConfig.model_validate(values), kinds, vocab=SMALL)
    for kind in kinds:
        for key in ("image", "text", "logits"):
            assert found[kind][key] < {"fp32": 1e-5, "bf16": 1e-2}[kind], (kind, key)
    assert found["fp32"]["gradient"] < 1e-5
    assert found["fp32"]["tensor"] < 1e-5, found["fp32"]["worst"]
    if "bf16" in kinds:
        rounded = found["bf16"]
        assert rounded["tensor"] < 1e-1, rounded["worst"]  # rounding of both sides
        assert rounded["gradient_frozen"] < 1e-2
        assert rounded["ours_from_fp32"] < 1.1 * rounded["peer_from_fp32"]


def test_a_wrong_activation_is_seen(parity: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig.model_validate(
        {"name": "ViT-B/32", "layers": 1, "text_layers": 1, "image_size": 64}
    )
    peer = parity.Peer
    other = config.model_copy(update={"activation": "gelu"})
    monkeypatch.setattr(parity, "Peer", lambda _, vocab: peer(other, vocab))
    found = parity.measure(config, ["fp32"], vocab=SMALL)
    assert min(found["fp32"]["image"], found["fp32"]["text"]) > 1e-4
