"""Everyone's checkpoints: told apart by their files, understood without being run."""

from __future__ import annotations

from pathlib import Path

from train.interchange import hugging_face, open_clip, own, published
from train.interchange.entries import read_json
from train.interchange.weights import Activation, Preprocess, Weights
from wit.errors import CheckpointError

__all__ = ["Activation", "Preprocess", "Weights", "understand"]


def understand(path: Path, activation: Activation | None, vocab: str | None) -> Weights:
    """Find out what a checkpoint is, and describe it without reading its tensors.

    Args:
        path: a run directory, RUN/ema for the running mean of its weights, or one of its
            checkpoints; a folder that `wit export` wrote, of
            open_clip's form or of Hugging Face; a file of OpenAI or open_clip (.pt, .bin,
            .safetensors).
        activation: in place of what the checkpoint says, or where it doesn't say.
        vocab: "openai" or the path of a vocabulary, in place of the checkpoint's own.

    Raises:
        CheckpointError: nothing of these, damaged, or of another architecture.
    """
    if path.name == own.MEAN and (path.parent / own.VOCABULARY).is_file():
        _ours(path, activation, vocab)
        return own.read_run(path.parent, part=own.MEAN)
    if path.is_dir():
        return _folder(path, activation, vocab)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: not a run directory, and no checkpoint: nothing is there; check the path"
        )
    run = path.parent.parent
    if path.parent.name == "checkpoints" and (run / own.VOCABULARY).is_file():
        _ours(path, activation, vocab)
        return own.read_run(run, path)
    if path.name in (*open_clip.FILES, own.TENSORS, "pytorch_model.bin"):
        for config in (own.CONFIG, open_clip.CONFIG, "config.json"):
            if (path.parent / config).is_file():
                return _folder(path.parent, activation, vocab)
    return published.read(path, activation, vocab)


def _folder(path: Path, activation: Activation | None, vocab: str | None) -> Weights:
    if (path / own.CONFIG).is_file():
        _ours(path, activation, vocab)
        return own.read_folder(path)
    if (path / open_clip.CONFIG).is_file():
        return open_clip.read(path, activation, vocab)
    if not (path / "config.json").is_file():
        raise CheckpointError(
            f"{path}: not a run directory (no config.json), nor a checkpoint of open_clip or"
            " Hugging Face; check the path, or train first"
        )
    if "model_type" in read_json(path / "config.json"):
        return hugging_face.read(path, activation, vocab)
    _ours(path, activation, vocab)
    return own.read_run(path)


def _ours(path: Path, activation: Activation | None, vocab: str | None) -> None:
    if activation is not None or vocab is not None:
        raise CheckpointError(f"{path}: knows its activation and vocabulary; leave them out")
