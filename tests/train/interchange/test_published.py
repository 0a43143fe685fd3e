"""OpenAI's and open_clip's single files, read by their shapes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from train import load_model
from train.config import ModelConfig
from train.interchange.entries import Entry, model_config, skeleton
from train.interchange.published import infer
from wit.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


def halves(state):
    """As OpenAI saved: convolutions, matrices and projections in half precision."""
    keep = ("ln_", "embedding", "logit_scale", "bn", "downsample.1")
    return {
        name: tensor if any(part in name for part in keep) else tensor.half()
        for name, tensor in state.items()
    }


def extra(made):
    return {
        "input_resolution": torch.tensor(made.config.image_size),
        "context_length": torch.tensor(made.config.context_length),
        "vocab_size": torch.tensor(made.tokenizer.vocab_size),
    }


def same(made, model, atol=1e-6) -> None:
    image_BE, text_BE = made.features()
    assert torch.allclose(model.encode_image(made.img_BCSS), image_BE, atol=atol)
    assert torch.allclose(model.encode_text(made.tokens_BL), text_BE, atol=atol)
    assert model.logit_scale == pytest.approx(made.clip.logit_scale.exp().item())


def vocabulary(made, folder: Path) -> str:
    path = folder / "words.json"
    made.tokenizer.save(path)
    return str(path)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
@pytest.mark.parametrize("form", ["scripted", "plain", "module"])
def test_openai(made, scripted, tower: str, form: str, tmp_path: Path) -> None:
    one = made(tower)
    small = halves(one.state)
    one.clip.load_state_dict(small)  # rounded as the file is
    path = tmp_path / "model.pt"
    if form == "scripted":
        masks = {"transformer.resblocks.0.attn_mask": torch.zeros(16, 16)}  # no weight
        scripted(small | extra(one) | masks, path)
        assert torch.jit.load(path).visual.conv1.weight.dtype == torch.half  # a real archive
    else:
        torch.save(small | extra(one) if form == "plain" else small, path)
    model = load_model(path, vocab=vocabulary(one, tmp_path))
    assert model.config.activation == "quick_gelu"
    assert model.source == "OpenAI checkpoint, quick_gelu as all of OpenAI's"
    assert {p.dtype for p in model.clip.parameters()} == {torch.float32}
    changed = {"name": "tiny" if tower == "vit" else "tiny-resnet"}
    assert model.config == one.config.model_copy(update=changed)
    same(one, model)


def test_the_papers_models_get_their_names(tmp_path: Path) -> None:
    for name in ("RN50x4", "ViT-L/14@336px"):
        config = ModelConfig.model_validate({"name": name})
        state = skeleton(config, 49_408, tmp_path).state_dict()
        entries = {n: Entry(tuple(t.shape), t.dtype, t.clone) for n, t in state.items()}
        values, vocab_size = infer(entries, tmp_path)
        assert vocab_size == 49_408
        assert model_config({**values, "activation": "quick_gelu"}, tmp_path) == config
        gelu = model_config({**values, "activation": "gelu"}, tmp_path)
        assert (gelu.name, gelu.activation) == (name, "gelu")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_open_clip_training_checkpoint(made, prefix: str, tmp_path: Path) -> None:
    one = made("vit", "gelu")
    state = {prefix + name: tensor for name, tensor in one.state.items()}
    state[prefix + "logit_scale"] = one.state["logit_scale"].reshape(1)
    optimizer = torch.optim.AdamW(one.clip.parameters())
    content = {
        "epoch": 3,
        "name": "2026_01_01-model_ViT-tiny",
        "state_dict": state,
        "optimizer": optimizer.state_dict(),
        "scaler": {"scale": 65536.0, "growth_factor": 2.0},
        "global_step": 300,
    }
    path = tmp_path / "epoch_3.pt"
    torch.save(content, path)
    model = load_model(path, vocab=vocabulary(one, tmp_path))
    assert (model.config.activation, model.step) == ("gelu", 300)
    assert "gelu as its name has no quickgelu" in model.source
    same(one, model)
    torch.save({**content, "name": "x-model_ViT-tiny-quickgelu-lr_1"}, path)
    assert load_model(path, vocab=vocabulary(one, tmp_path)).config.activation == "quick_gelu"


def test_text_tower_of_its_own_and_a_bias(made, tmp_path: Path) -> None:
    one = made("vit", "gelu")
    state = {
        name if name.startswith(("visual.", "logit")) else f"text.{name}": tensor
        for name, tensor in one.state.items()
    }
    state |= {"logit_bias": torch.tensor([-10.0]), "text.attn_mask": torch.zeros(16, 16)}
    path = tmp_path / "custom.safetensors"
    safetensors.torch.save_file(state, path)
    with pytest.raises(CheckpointError, match="doesn't say which activation"):
        load_model(path, vocab=vocabulary(one, tmp_path))
    model = load_model(path, activation="gelu", vocab=vocabulary(one, tmp_path))
    assert model.logit_bias == -10
    same(one, model)


def test_the_published_vocabulary_is_assumed_where_its_size_fits(made, tmp_path: Path) -> None:
    one = made("vit", published=True)
    path = tmp_path / "vit-quickgelu.pt"
    torch.save(one.state, path)
    model = load_model(path)
    assert model.tokenize(["a photo of a cat"])[0, :6].tolist() == [
        49406,
        320,
        1125,
        539,
        320,
        2368,
    ]
    other = made("vit")
    torch.save(other.state, path)
    with pytest.raises(
        CheckpointError,
        match=re.escape(f"has {other.tokenizer.vocab_size} ids and brings no vocabulary"),
    ):
        load_model(path)
