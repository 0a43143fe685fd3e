"""Our own forms: a run directory, and the folder that `wit export --to safetensors` writes.

The folder holds wit_config.json, model.safetensors with the published names, and tokenizer.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from train import checkpoint
from train.config import ModelConfig
from train.interchange.archive import read_archive, tensors
from train.interchange.entries import read_json, read_safetensors
from train.interchange.open_clip import triple
from train.interchange.weights import Preprocess, Weights, sha256, vocabulary
from wit.config import explain
from wit.errors import CheckpointError
from wit.tokenizer import Tokenizer

MEAN = "ema"  # RUN/ema stands for the running mean of a run's weights
CONFIG, TENSORS, VOCABULARY = "wit_config.json", "model.safetensors", "tokenizer.json"


def read_run(run: Path, path: Path | None = None, part: str = "model") -> Weights:
    """The newest sound checkpoint of a run directory, or the one of its files that is named.

    Args:
        part: the weights as trained, or their running mean (`MEAN`).

    Raises:
        CheckpointError: no checkpoint yet, its files are damaged, or it has no running mean.
    """
    where = run / "config.json"
    stored = read_json(where).get("config")
    if not isinstance(stored, dict) or not isinstance(stored.get("model"), dict):
        raise CheckpointError(f"{where}: damaged; put back the run's own, or train anew")
    if path is None:
        found = checkpoint.newest(run)
        if found is None:
            raise CheckpointError(f"{run}: holds no checkpoint yet; train longer")
        path, digest = found.path, found.sha256
    else:
        digest = sha256(path)
    content = read_archive(path).content
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(f"{path}: not a checkpoint of this project: it holds no model")
    if not isinstance(content.get(part), dict):
        raise CheckpointError(f"{path}: has no running mean of weights; train with optim.ema")
    config = _config(stored["model"], where)
    tokenizer = Tokenizer.load(run / VOCABULARY)
    return Weights(
        source=f"run, {config.activation} as trained{', running mean' if part == MEAN else ''}",
        path=path,
        config=config,
        entries=tensors(content[part], path),
        tokenizer=tokenizer,
        preprocess=Preprocess(config.image_size),
        step=int(content.get("step", 0)),
        identity=[digest, (run / VOCABULARY).read_text("utf-8"), stored["model"]]
        + ([part] if part != "model" else []),
    )


def read_folder(folder: Path) -> Weights:
    """A folder with wit_config.json.

    Raises:
        CheckpointError: a file is missing, damaged or of another model.
    """
    where = folder / CONFIG
    stored = read_json(where)
    if not isinstance(stored.get("model"), dict):
        raise CheckpointError(f"{where}: has no model")
    config = _config(stored["model"], where)
    entries = read_safetensors(folder / TENSORS)
    embeddings = entries.get("token_embedding.weight")
    size = embeddings.shape[0] if embeddings is not None and embeddings.shape else 0
    return Weights(
        source=f"exported folder, {config.activation} as trained",
        path=folder / TENSORS,
        config=config,
        entries=entries,
        tokenizer=vocabulary(None, folder, size, folder / TENSORS),
        preprocess=Preprocess(
            config.image_size,
            triple(stored.get("mean"), "mean", where),
            triple(stored.get("std"), "std", where),
        ),
        step=int(stored.get("step", 0)),
        identity=[sha256(folder / TENSORS), sha256(folder / VOCABULARY), stored],
    )


def config_json(config: ModelConfig, preprocess: Preprocess, step: int) -> dict[str, Any]:
    """wit_config.json of a model."""
    return {
        "model": config.model_dump(mode="json"),
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "step": step,
    }


def _config(stored: dict[str, Any], path: Path) -> ModelConfig:
    try:
        return ModelConfig.model_validate(stored)
    except ValidationError as error:
        raise CheckpointError(f"{path}: damaged: {explain(ModelConfig, error)}") from None
