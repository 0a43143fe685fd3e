"""Folders that Hugging Face's own library wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from train import load_model
from train.interchange.hugging_face import renamed
from wit.errors import CheckpointError


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="extra dev")


@pytest.fixture
def theirs(made, transformers):
    """A CLIPModel with the weights of one of ours, and ours."""
    one = made("vit", "gelu", published=True)
    config = one.config
    common = {"hidden_act": "gelu", "projection_dim": 32}
    text = common | {"vocab_size": 49_408, "hidden_size": 64, "intermediate_size": 256}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 1, "max_position_embeddings": 16}
    image = common | {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2}
    image |= {"num_attention_heads": 2, "image_size": config.image_size, "patch_size": 8}
    peer = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=32)
    )
    peer.load_state_dict(dict(renamed(one.state.items())))
    return one, peer


def same(made, model) -> None:
    image_BE, text_BE = made.features()
    assert torch.allclose(model.encode_image(made.img_BCSS), image_BE, atol=1e-6)
    assert torch.allclose(model.encode_text(made.tokens_BL), text_BE, atol=1e-6)


def words(made, folder: Path) -> str:
    made.tokenizer.save(folder / "words.json")
    return str(folder / "words.json")


def test_what_it_saves(theirs, tmp_path: Path) -> None:
    one, peer = theirs
    peer.save_pretrained(tmp_path / "whole")
    peer.save_pretrained(tmp_path / "parts", max_shard_size="2MB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    old = tmp_path / "old"
    peer.config.save_pretrained(old)
    state = peer.state_dict() | {"text_model.embeddings.position_ids": torch.arange(16)[None]}
    torch.save(state, old / "pytorch_model.bin")
    for folder in ("whole", "parts", "old"):
        model = load_model(tmp_path / folder)
        assert model.source == "Hugging Face folder, gelu as config.json says"
        same(one, model)
    same(one, load_model(tmp_path / "whole" / "model.safetensors"))


def test_the_pictures_it_was_trained_with(theirs, tmp_path: Path) -> None:
    one, peer = theirs
    peer.save_pretrained(tmp_path)
    plain = load_model(tmp_path)
    stored = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 0.5], "crop_size": 32}
    where = tmp_path / "preprocessor_config.json"
    where.write_text(json.dumps(stored | {"size": {"shortest_edge": 32}}))
    model = load_model(tmp_path)
    assert model.transform.std == (0.25, 0.5, 0.5)
    own = load_model(tmp_path, vocab=words(one, tmp_path))
    assert own.fingerprint == model.fingerprint  # the same vocabulary by another way
    assert model.fingerprint != plain.fingerprint
    pixels = (one.img_BCSS / 255 - 0.5) / torch.tensor([0.25, 0.5, 0.5]).view(3, 1, 1)
    assert torch.allclose(model.encode_image(one.img_BCSS), plain.encode_image(pixels), atol=1e-6)
    where.write_text(json.dumps(stored | {"size": {"shortest_edge": 64}}))
    with pytest.raises(CheckpointError, match="but the model sees 32"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (None, {"model_type": "siglip"}, "model_type = 'siglip' is not 'clip'"),
        ("text_config", {"hidden_act": "gelu_new"}, "hidden_act"),
        ("text_config", {"eos_token_id": 5}, "eos_token_id = 5 is not the largest id"),
        ("vision_config", {"intermediate_size": 100}, "intermediate_size"),
        ("vision_config", {"num_hidden_layers": 3}, r"layers\.2\.self_attn\.q_proj.* is missing"),
        ("vision_config", {"num_hidden_layers": 10**9}, "claims 1,000,000,000 blocks"),
        ("vision_config", {"hidden_size": 2**40, "intermediate_size": 2**42}, "sizes that no mo"),
        ("vision_config", {"num_attention_heads": 3}, "can't be divided by 3 heads"),
        ("text_config", {"vocab_size": 500, "eos_token_id": 499}, "has 500 ids and brings no voc"),
    ],
)
def test_configs_that_do_not_fit(theirs, part, changes, message: str, tmp_path: Path) -> None:
    _, peer = theirs
    peer.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    (stored[part] if part else stored).update(changes)
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_old_configs_name_a_wrong_end(theirs, tmp_path: Path) -> None:
    one, peer = theirs
    peer.config.text_config.eos_token_id = 2  # as in the published folders of OpenAI's models
    peer.save_pretrained(tmp_path)
    same(one, load_model(tmp_path))
