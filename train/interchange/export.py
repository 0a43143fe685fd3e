"""A loaded model written in other formats, each a folder that appears when it is whole.

safetensors  wit_config.json, model.safetensors, tokenizer.json; `load_model` reads it back
hf           what CLIPModel.from_pretrained and CLIPProcessor.from_pretrained read
open_clip    what open_clip's "local-dir:FOLDER" reads
onnx         image.onnx and text.onnx (onnx.py)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from train.interchange import hugging_face, open_clip, own
from train.interchange.hf_tokenizer import write_tokenizer
from train.interchange.weights import PUBLISHED_VOCAB
from train.loaded import LoadedModel
from wit.config import write_json
from wit.errors import ConfigError, InputError


def export(model: LoadedModel, to: str, out: Path) -> None:
    """Write the model as `to` into the new folder `out`.

    Raises:
        ConfigError: the format has no form for this model.
        InputError: `out` is there already.
    """
    if model.predictive and to != "safetensors":
        raise ConfigError(f"to = {to}: there is no such form of a model that predicts captions")
    if to in ("hf", "open_clip"):
        check_plain(model, to)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is there already; choose another folder, or remove it")
    temporary = out.with_name(out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    WRITERS[to](model, temporary)
    temporary.replace(out)


def check_plain(model: LoadedModel, to: str) -> None:
    """Other formats know the paper's towers and nothing else.

    Raises:
        ConfigError: a ResNet for Hugging Face, a stem of convolutions, pooling of all tokens.
    """
    config, name = model.config, {"hf": "Hugging Face", "open_clip": "open_clip"}[to]
    problem = None
    if config.tower == "resnet":
        problem = "ResNets" if to == "hf" else None
    elif config.stem:
        problem = "a stem of convolutions (model.stem)"
    elif config.pool != "class":
        problem = f"model.pool = {config.pool}"
    if problem is None and model.logit_bias is not None and to == "hf":
        problem = "a bias of the logits"
    problem = problem or _stranger(model)
    if problem:
        raise ConfigError(f"to = {to}: {name} has no form for {problem}; use --to safetensors")


def _stranger(model: LoadedModel) -> str | None:
    """A tensor that the published models don't have."""
    for name in model.clip.state_dict():
        if name == "logit_bias" or (name.startswith("visual.") and model.config.blocks):
            continue
        try:
            hugging_face.names(name)
        except KeyError:
            return name
    return None


def _safetensors(model: LoadedModel, folder: Path) -> None:
    save_file(_ready(model.clip.state_dict()), folder / own.TENSORS, {"format": "pt"})
    model.tokenizer.save(folder / own.VOCABULARY)
    config = own.config_json(model.config, model.transform, model.step)
    write_json(config, folder / own.CONFIG)


def _hf(model: LoadedModel, folder: Path) -> None:
    renamed = dict(hugging_face.renamed(model.clip.state_dict().items()))
    save_file(_ready(renamed), folder / "model.safetensors", {"format": "pt"})
    write_json(hugging_face.config_json(model.config, model.tokenizer), folder / "config.json")
    pictures = hugging_face.preprocessor_json(model.transform)
    write_json(pictures, folder / "preprocessor_config.json")
    write_tokenizer(model.tokenizer, model.context_length, folder)


def _open_clip(model: LoadedModel, folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    save_file(_ready(model.clip.state_dict()), path, {"format": "pt"})
    config = open_clip.config_json(model.config, model.tokenizer, model.transform)
    if model.logit_bias is not None:
        config["model_cfg"]["init_logit_bias"] = model.logit_bias
    write_json(config, folder / open_clip.CONFIG)
    if model.tokenizer.vocab_size != PUBLISHED_VOCAB:
        write_tokenizer(model.tokenizer, model.context_length, folder)


def _onnx(model: LoadedModel, folder: Path) -> None:
    from train.interchange.onnx import write  # its packages are an extra

    write(model, folder)


WRITERS: dict[str, Callable[[LoadedModel, Path], None]] = {
    "safetensors": _safetensors,
    "hf": _hf,
    "open_clip": _open_clip,
    "onnx": _onnx,
}


def _ready(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
