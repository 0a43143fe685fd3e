"""`wit export`: a trained model in the formats of other tools."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic_settings import CliPositionalArg

from wit.config import Settings, load


class ExportConfig(Settings):
    """Write a trained model for other tools: Hugging Face, open_clip, safetensors, ONNX."""

    model: CliPositionalArg[Path] = Path("data/run")
    """run directory, exported folder, or a checkpoint of OpenAI, open_clip or Hugging Face"""
    to: Literal["safetensors", "hf", "open_clip", "onnx"] = "safetensors"
    """Format of the folder."""
    out: Path
    """Folder to write; it must not be there yet."""
    activation: Literal["gelu", "quick_gelu"] | None = None
    """For a checkpoint that doesn't say which it has, or says it wrongly."""
    vocab: str | None = None
    """"openai" or the path of a vocabulary, in place of the checkpoint's own."""


def main(argv: Sequence[str]) -> int:
    """Load, check, write; the folder appears when it is whole."""
    config = load(ExportConfig, argv, prog="wit export")
    from train import load_model  # torch takes seconds to import
    from train.interchange.export import export

    model = load_model(config.model, activation=config.activation, vocab=config.vocab)
    print(f"{config.model}: {model.source}", file=sys.stderr)
    export(model, config.to, config.out)
    print(f"{config.to}: {config.out}")
    return 0
