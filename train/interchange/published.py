"""State dicts with the published names, read by their shapes: OpenAI's files and open_clip's.

OpenAI's file is a TorchScript archive, or a plain state dict, with half weights and the extra keys
`input_resolution`, `context_length` and `vocab_size`. open_clip's is the dict of a training
checkpoint (`epoch`, `name`, `state_dict`), a bare state dict, or safetensors. Shapes tell
everything but the activation.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from train.interchange.archive import read_archive, tensors
from train.interchange.entries import (
    Entries,
    model_config,
    read_safetensors,
    side,
    skeleton,
)
from train.interchange.weights import Activation, Preprocess, Weights, digest, sha256, vocabulary
from wit.errors import CheckpointError

EXTRA = ("input_resolution", "context_length", "vocab_size")  # of OpenAI's files
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
BUFFERS = ("attn_mask", "text.attn_mask")  # that old versions saved
HEAD, HEADS = 64, {1280: 80}  # width of an attention head; of ViT-H, which has 16 of 80
SAY_WHICH = "say activation = gelu (open_clip's own) or quick_gelu (OpenAI, MetaCLIP, DFN)"


def read(path: Path, activation: Activation | None, vocab: str | None) -> Weights:
    """A checkpoint file without a config beside it.

    Raises:
        CheckpointError: not such a file, damaged, or it doesn't say which activation it has.
    """
    content: Any = {}
    scripted = False
    if path.suffix == ".safetensors":
        entries = read_safetensors(path)
    else:
        archive = read_archive(path)
        content, scripted = archive.content, archive.scripted
        entries = state_dict(content, path)
    entries, marked = plain(entries)
    config_values, vocab_size = infer(entries, path)
    about, activation = _activation(path, content, entries, scripted or marked, activation)
    config = model_config({**config_values, "activation": activation}, path)
    if scripted:  # attributes that are no weights, as masks, can't be told from them
        known = skeleton(config, vocab_size, path).state_dict()
        entries = {name: entry for name, entry in entries.items() if name in known}
    step = content.get("global_step", 0) if isinstance(content, dict) else 0
    tokenizer = vocabulary(vocab, None, vocab_size, path)
    return Weights(
        source=about,
        path=path,
        config=config,
        entries=entries,
        tokenizer=tokenizer,
        preprocess=Preprocess(config.image_size),
        step=step if isinstance(step, int) else 0,
        identity=[sha256(path), config.model_dump(mode="json"), digest(tokenizer)],
    )


def state_dict(content: Any, path: Path) -> Entries:
    """The tensors of a model, of whatever lies around them."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    found = tensors(content, path)
    if not found:
        raise CheckpointError(f"{path}: holds no tensors")
    return found


def plain(entries: Entries) -> tuple[Entries, bool]:
    """The published names alone, and whether OpenAI's extra keys were among them."""
    found: Entries = {}
    for full, entry in entries.items():
        name = full
        while name.startswith(PREFIXES):
            name = name.partition(".")[2]
        name = name.replace("._orig_mod.", ".")
        if name not in BUFFERS:
            found[name.removeprefix("text.")] = entry
    marked = not found.keys().isdisjoint(EXTRA)
    for key in EXTRA:
        found.pop(key, None)
    for name in set(found) & {"logit_scale", "logit_bias"}:  # [1] under FSDP
        if found[name].shape == (1,):
            found[name] = found[name].view()
    return found, marked


def infer(entries: Entries, path: Path) -> tuple[dict[str, Any], int]:
    """Dimensions of the towers, and the size of the vocabulary, from shapes.

    Raises:
        CheckpointError: a tensor that decides one of them is missing or of the wrong rank.
    """
    ranks = {"text_projection": 2, "positional_embedding": 2, "token_embedding.weight": 2}
    tower = "resnet" if "visual.attnpool.positional_embedding" in entries else "vit"
    ranks |= (
        {"visual.layer1.0.conv1.weight": 4, "visual.attnpool.positional_embedding": 2}
        if tower == "resnet"
        else {"visual.conv1.weight": 4, "visual.positional_embedding": 2}
    )
    for name, rank in ranks.items():
        if name not in entries:
            raise CheckpointError(
                f"{path}: not a CLIP checkpoint that can be read by its shapes: {name} is missing"
            )
        if len(entries[name].shape) != rank or 0 in entries[name].shape:
            raise CheckpointError(f"{path}: {name} has shape {entries[name].shape}")
    text_width, embed_dim = entries["text_projection"].shape
    context_length = entries["positional_embedding"].shape[0]
    values = {
        "tower": tower,
        "embed_dim": embed_dim,
        "context_length": context_length,
        "text_width": text_width,
        "text_layers": _count(entries, r"transformer\.resblocks\.(\d+)\."),
        "text_heads": heads(text_width),
    }
    if tower == "resnet":
        width = entries["visual.layer1.0.conv1.weight"].shape[0]
        name = "visual.attnpool.positional_embedding"
        blocks = [_count(entries, rf"visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
        values |= {"width": width, "blocks": blocks, "heads": max(1, width * 32 // HEAD)}
        values |= {"image_size": 32 * side(entries[name], name, path)}
    else:
        name = "visual.positional_embedding"
        width, _, patch, _ = entries["visual.conv1.weight"].shape
        layers = _count(entries, r"visual\.transformer\.resblocks\.(\d+)\.")
        values |= {"width": width, "patch": patch, "layers": layers, "heads": heads(width)}
        values |= {"image_size": patch * side(entries[name], name, path)}
    return values, entries["token_embedding.weight"].shape[0]


def heads(width: int) -> int:
    """Attention heads of a published transformer of this width."""
    return max(1, width // HEADS.get(width, HEAD))


def _count(entries: Entries, pattern: str) -> int:
    """Blocks whose number the pattern finds; at least 1, so that what is missing gets named."""
    return max(1, len({found[1] for name in entries if (found := re.match(pattern, name))}))


def _activation(
    path: Path,
    content: Any,
    entries: Entries,
    openai: bool,
    given: Activation | None,
) -> tuple[str, Activation]:
    """What the file is, with the reason for its activation; and the activation."""
    training = isinstance(content, dict) and "state_dict" in content
    halves = {entry.dtype for entry in entries.values() if entry.dtype.is_floating_point}
    openai = openai or (not training and halves == {torch.float16, torch.float32})
    kind = "OpenAI checkpoint" if openai else "open_clip checkpoint"
    if given is not None:
        return f"{kind}, {given} as asked", given
    if openai:
        return f"{kind}, quick_gelu as all of OpenAI's", "quick_gelu"
    name = str(content.get("name", "")) if training else ""
    for said, where in ((name, "its name"), (path.stem, "its file's name")):
        if "quickgelu" in said.lower():
            return f"{kind}, quick_gelu by {where}", "quick_gelu"
    if training:
        return f"{kind}, gelu as its name has no quickgelu ({SAY_WHICH})", "gelu"
    raise CheckpointError(f"{path}: doesn't say which activation it was trained with; {SAY_WHICH}")
