"""Hugging Face's CLIPModel: config.json beside model.safetensors or pytorch_model.bin.

Attention there has three projections where the published names have one stacked tensor, and
projections to the shared space are transposed. There are no ResNets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from train.config import ModelConfig
from train.interchange.archive import read_archive
from train.interchange.entries import (
    Entries,
    model_config,
    read_json,
    read_safetensors,
    skeleton,
    stacked,
)
from train.interchange.open_clip import triple
from train.interchange.published import state_dict
from train.interchange.weights import (
    PUBLISHED_VOCAB,
    Activation,
    Preprocess,
    Weights,
    digest,
    sha256,
    vocabulary,
)
from train.model.pixels import MEAN, STD
from wit.errors import CheckpointError
from wit.tokenizer import Tokenizer

IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
OUTSIDE = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
TRANSPOSED = {
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
}
BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)(weight|bias)$")
# Defaults of both towers, which a config.json may leave out.
VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
VISION |= {"num_attention_heads": 12, "image_size": 224, "patch_size": 32, "num_channels": 3}
TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
TEXT |= {"num_attention_heads": 8, "max_position_embeddings": 77, "vocab_size": PUBLISHED_VOCAB}
TEXT |= {"eos_token_id": PUBLISHED_VOCAB - 1}
OLD_EOS = 2  # in configs from before it was put right; features are then taken at the largest id


def names(ours: str) -> tuple[str, ...]:
    """Names there of one of our tensors; three for stacked queries, keys and values.

    Raises:
        KeyError: it has no counterpart.
    """
    found = BLOCK.match(ours)
    if not found:
        return (TRANSPOSED.get(ours) or OUTSIDE[ours],)
    side, index, part, kind = found.groups()
    layer = f"{'vision_model' if side else 'text_model'}.encoder.layers.{index}"
    if part == "attn.in_proj_":
        return tuple(f"{layer}.self_attn.{letter}_proj.{kind}" for letter in "qkv")
    return (f"{layer}.{IN_BLOCK[part.removesuffix('.')]}.{kind}",)


def renamed(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Our tensors (weights or their gradients) under the names and in the shapes there."""
    for name, tensor in tensors:
        theirs = names(name)
        whole = tensor.T if name in TRANSPOSED else tensor
        yield from zip(theirs, whole.chunk(3) if len(theirs) == 3 else [whole], strict=True)


def read(folder: Path, activation: Activation | None, vocab: str | None) -> Weights:
    """A folder that `CLIPModel.save_pretrained` wrote.

    Raises:
        CheckpointError: a file is missing or damaged, or the config is of another architecture.
    """
    where = folder / "config.json"
    stored = read_json(where)
    values, vocab_size, act = _values(stored, where)
    chosen = activation or act
    config = model_config({**values, "activation": chosen}, where)
    theirs, files = _tensors(folder)
    entries: Entries = {}
    for name in skeleton(config, vocab_size, where).state_dict():
        parts = names(name)
        missing = [part for part in parts if part not in theirs]
        if missing:
            raise CheckpointError(f"{files[0]}: {missing[0]} is missing")
        if len({theirs[part].shape for part in parts}) > 1:
            raise CheckpointError(f"{files[0]}: {parts[0]} and its like differ in shape")
        found = [theirs.pop(part) for part in parts]
        entry = stacked(found) if len(found) > 1 else found[0]
        entries[name] = entry.T if name in TRANSPOSED else entry
    extra = [name for name in theirs if not name.endswith("position_ids")]
    if extra:
        raise CheckpointError(f"{files[0]}: {extra[0]} is of another kind of model")
    if entries["logit_scale"].shape == (1,):
        entries["logit_scale"] = entries["logit_scale"].view()
    why = "as asked" if activation else "as config.json says"
    pictures = folder / "preprocessor_config.json"
    preprocess = _preprocess(pictures, config.image_size)
    shown = [preprocess.mean, preprocess.std]
    tokenizer = vocabulary(vocab, folder, vocab_size, files[0])
    return Weights(
        source=f"Hugging Face folder, {chosen} {why}",
        path=files[0],
        config=config,
        entries=entries,
        tokenizer=tokenizer,
        preprocess=preprocess,
        step=0,
        identity=[*map(sha256, files), stored, shown, chosen, digest(tokenizer)],
    )


def _tensors(folder: Path) -> tuple[Entries, list[Path]]:
    """The tensors of the folder's one file, or of the files that an index names."""
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).is_file():
            shards = read_json(folder / index).get("weight_map")
            named = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []
            if not named or any(Path(name).name != name for name in named):
                raise CheckpointError(f"{folder / index}: doesn't name files of this folder")
            files = [folder / name for name in named]
            break
    else:
        found = [folder / name for name in ("model.safetensors", "pytorch_model.bin")]
        files = [path for path in found if path.is_file()][:1]
        if not files:
            raise CheckpointError(f"{folder}: no model.safetensors and no pytorch_model.bin")
    entries: Entries = {}
    for path in files:
        if not path.is_file():
            raise CheckpointError(f"{path}: missing")
        safe = path.suffix == ".safetensors"
        entries |= read_safetensors(path) if safe else state_dict(read_archive(path).content, path)
    return entries, files


def _values(stored: dict[str, Any], path: Path) -> tuple[dict[str, Any], int, Activation]:
    if stored.get("model_type") != "clip":
        raise CheckpointError(f"{path}: model_type = {stored.get('model_type')!r} is not 'clip'")
    vision = VISION | (stored.get("vision_config") or {})
    text = TEXT | (stored.get("text_config") or {})
    acts = {tower.get("hidden_act", "quick_gelu") for tower in (vision, text)}
    act: Activation = "quick_gelu" if acts == {"quick_gelu"} else "gelu"
    if len(acts) > 1 or acts - {"quick_gelu", "gelu"}:
        raise CheckpointError(f"{path}: hidden_act = {sorted(acts)}: gelu or quick_gelu for both")
    for tower in (vision, text):
        if tower["intermediate_size"] != 4 * tower["hidden_size"]:
            raise CheckpointError(f"{path}: intermediate_size is not four times hidden_size")
        if tower.get("layer_norm_eps", 1e-5) != 1e-5:
            raise CheckpointError(f"{path}: layer_norm_eps is not 1e-5")
    if text["eos_token_id"] not in (OLD_EOS, text["vocab_size"] - 1):
        raise CheckpointError(
            f"{path}: eos_token_id = {text['eos_token_id']} is not the largest id, which CLIP pools"
        )
    values = {
        "embed_dim": stored.get("projection_dim", 512),
        "image_size": vision["image_size"],
        "patch": vision["patch_size"],
        "width": vision["hidden_size"],
        "layers": vision["num_hidden_layers"],
        "heads": vision["num_attention_heads"],
        "context_length": text["max_position_embeddings"],
        "text_width": text["hidden_size"],
        "text_layers": text["num_hidden_layers"],
        "text_heads": text["num_attention_heads"],
    }
    if not isinstance(text["vocab_size"], int):
        raise CheckpointError(f"{path}: vocab_size = {text['vocab_size']!r} is not a number")
    return values, text["vocab_size"], act


def _preprocess(path: Path, size: int) -> Preprocess:
    if not path.is_file():
        return Preprocess(size)
    stored = read_json(path)
    wanted = {"resample": 3, "do_resize": True, "do_center_crop": True, "do_normalize": True}
    for key, right in wanted.items():
        if stored.get(key, right) != right:
            raise CheckpointError(f"{path}: {key} = {stored[key]!r} is not done here, only {right}")
    for key in ("size", "crop_size"):
        sides = stored.get(key, size)
        sides = set(sides.values()) if isinstance(sides, dict) else {sides}
        if sides != {size}:
            raise CheckpointError(f"{path}: {key} = {stored[key]!r}, but the model sees {size}")
    return Preprocess(
        size,
        triple(stored.get("image_mean", MEAN), "image_mean", path),
        triple(stored.get("image_std", STD), "image_std", path),
    )


def config_json(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json of one of our models."""
    common: dict[str, Any] = {"projection_dim": config.embed_dim, "hidden_act": config.activation}
    ids = {"bos_token_id": tokenizer.sot, "eos_token_id": tokenizer.eot}
    text = (
        common
        | ids
        | {
            "model_type": "clip_text_model",
            "pad_token_id": tokenizer.eot,
            "vocab_size": tokenizer.vocab_size,
            "hidden_size": config.text_width,
            "intermediate_size": 4 * config.text_width,
            "num_hidden_layers": config.text_layers,
            "num_attention_heads": config.text_heads,
            "max_position_embeddings": config.context_length,
        }
    )
    vision = common | {
        "model_type": "clip_vision_model",
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "image_size": config.image_size,
        "patch_size": config.patch,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "dtype": "float32",
        "text_config": text,
        "vision_config": vision,
    }


def preprocessor_json(preprocess: Preprocess) -> dict[str, Any]:
    """preprocessor_config.json of one of our models."""
    size = preprocess.size
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
    return {
        **dict.fromkeys(steps, True),
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }
