"""open_clip's folder form: open_clip_config.json beside open_clip_model.safetensors or a .bin.

Names and shapes of the tensors are the published ones; a model with a text tower of its own class
(`CustomTextCLIP`) has `text.` before the names of that tower.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.config import ModelConfig
from train.interchange.archive import read_archive
from train.interchange.entries import model_config, read_json, read_safetensors
from train.interchange.published import plain, state_dict
from train.interchange.weights import (
    PUBLISHED_VOCAB,
    Activation,
    Preprocess,
    Triple,
    Weights,
    digest,
    sha256,
    vocabulary,
)
from train.model.pixels import MEAN, STD
from wit.errors import CheckpointError
from wit.tokenizer import Tokenizer

CONFIG = "open_clip_config.json"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors")
# Keys of towers that are built here, and values of the others that change nothing.
VISION = {"image_size", "layers", "width", "head_width", "patch_size", "patch_dropout"}
TEXT = {"context_length", "vocab_size", "width", "heads", "layers"}
TEXT |= {"hf_tokenizer_name", "pad_id", "eos_id"}
MODEL = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"}
MODEL |= {"init_logit_bias", "init_logit_scale", "cast_dtype", "output_dict"}
NEUTRAL: dict[str, Any] = {
    "mlp_ratio": 4.0,
    "pool_type": ("tok", "argmax"),
    "proj_type": "linear",
    "pos_embed_type": "learnable",
    "block_type": "default",
}


def read(folder: Path, activation: Activation | None, vocab: str | None) -> Weights:
    """A folder with open_clip_config.json.

    Raises:
        CheckpointError: a file is missing or damaged, or the config is of another architecture.
    """
    where = folder / CONFIG
    stored = read_json(where)
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder}: no weights beside {CONFIG}: none of {', '.join(FILES)}")
    model = _section(stored, "model_cfg", where)
    values, vocab_size = _values(model, where)
    quick = bool(model.get("quick_gelu", False))
    chosen: Activation = activation or ("quick_gelu" if quick else "gelu")
    config = model_config({**values, "activation": chosen}, where)
    if path.suffix == ".safetensors":
        entries = read_safetensors(path)
    else:
        entries = state_dict(read_archive(path).content, path)
    entries, _ = plain(entries)
    preprocess = _preprocess(stored.get("preprocess_cfg") or {}, config.image_size, where)
    why = "as asked" if activation else f"as {CONFIG} says"
    tokenizer = vocabulary(vocab, folder, vocab_size, path)
    return Weights(
        source=f"open_clip folder, {chosen} {why}",
        path=path,
        config=config,
        entries=entries,
        tokenizer=tokenizer,
        preprocess=preprocess,
        step=0,
        identity=[sha256(path), stored, chosen, digest(tokenizer)],
    )


def _section(stored: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    found = stored.get(key)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: has no {key}")
    return found


def _values(model: dict[str, Any], path: Path) -> tuple[dict[str, Any], int]:
    vision, text = _section(model, "vision_cfg", path), _section(model, "text_cfg", path)
    for section, known in ((model, MODEL), (vision, VISION), (text, TEXT)):
        _only(section, known, path)
    try:
        width, head = int(vision.get("width", 768)), int(vision.get("head_width", 64))
        size = vision.get("image_size", 224)
        size = size[0] if isinstance(size, list) and len(set(size)) == 1 else size
        values = {
            "embed_dim": model["embed_dim"],
            "image_size": size,
            "width": width,
            "context_length": text.get("context_length", 77),
            "text_width": text.get("width", 512),
            "text_layers": text.get("layers", 12),
            "text_heads": text.get("heads", 8),
        }
        layers = vision.get("layers", 12)
        if isinstance(layers, list):
            values |= {"tower": "resnet", "blocks": layers, "heads": width * 32 // head}
        else:
            values |= {"layers": layers, "heads": width // head}
            values |= {"patch": vision.get("patch_size", 16)}
        vocab_size = int(text.get("vocab_size", PUBLISHED_VOCAB))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise CheckpointError(f"{path}: a size is missing or not a number") from None
    return values, vocab_size


def _only(section: dict[str, Any], known: set[str], path: Path) -> None:
    """Nothing that would make another network of the same tensors."""
    for key, value in section.items():
        neutral = NEUTRAL.get(key)
        same = value in neutral if isinstance(neutral, tuple) else value == neutral
        if key not in known and value and not same:
            raise CheckpointError(
                f"{path}: {key} = {value!r} makes it another architecture than CLIP's nine"
            )


def _preprocess(stored: dict[str, Any], size: int, path: Path) -> Preprocess:
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path}: preprocess_cfg is not an object")
    for key, right in (("interpolation", "bicubic"), ("resize_mode", "shortest"), ("mode", "RGB")):
        if stored.get(key, right) != right:
            raise CheckpointError(f"{path}: {key} = {stored[key]!r} is not done here, only {right}")
    return Preprocess(
        size,
        triple(stored.get("mean", MEAN), "mean", path),
        triple(stored.get("std", STD), "std", path),
    )


def triple(value: Any, name: str, path: Path) -> Triple:
    """Three numbers, one for each channel."""
    try:
        red, green, blue = map(float, value)
    except (TypeError, ValueError):
        raise CheckpointError(f"{path}: {name} = {value!r} is not three numbers") from None
    if name.endswith("std") and min(red, green, blue) <= 0:
        raise CheckpointError(f"{path}: {name} = {value!r} must be above 0")
    return red, green, blue


def config_json(
    config: ModelConfig, tokenizer: Tokenizer, preprocess: Preprocess
) -> dict[str, Any]:
    """open_clip_config.json of one of our models."""
    vision: dict[str, Any] = {"image_size": config.image_size, "width": config.width}
    vision["head_width"] = config.features // config.heads
    if config.tower == "resnet":
        vision |= {"layers": list(config.blocks), "patch_size": None}
    else:
        vision |= {"layers": config.layers, "patch_size": config.patch}
    text: dict[str, Any] = {
        "context_length": config.context_length,
        "vocab_size": tokenizer.vocab_size,
        "width": config.text_width,
        "heads": config.text_heads,
        "layers": config.text_layers,
    }
    if tokenizer.vocab_size != PUBLISHED_VOCAB:
        text["hf_tokenizer_name"] = "."  # read from the folder itself
    model = {"embed_dim": config.embed_dim, "vision_cfg": vision, "text_cfg": text}
    if config.activation == "quick_gelu":
        model["quick_gelu"] = True
    pictures: dict[str, Any] = {"mean": list(preprocess.mean), "std": list(preprocess.std)}
    pictures |= {"size": preprocess.size, "interpolation": "bicubic", "resize_mode": "shortest"}
    return {"model_cfg": model, "preprocess_cfg": pictures}
