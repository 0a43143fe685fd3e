"""`wit export`: a trained model in the formats of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic_settings import CliPositionalArg

from train.options import ModelOptions
from wit.config import load


class ExportConfig(ModelOptions):
    """Write a trained model for other tools: Hugging Face, open_clip, safetensors, ONNX."""

    model: CliPositionalArg[Path] = Path("data/run")
    """run directory, exported folder, or a checkpoint of OpenAI, open_clip or Hugging Face"""
    to: Literal["safetensors", "hf", "open_clip", "onnx"] = "safetensors"
    """Format of the folder."""
    out: Path
    """Folder to write; it must not be there yet."""


def main(argv: Sequence[str]) -> int:
    """Load, check, write; the folder appears when it is whole."""
    config = load(ExportConfig, argv, prog="wit export")
    from train.interchange.export import export  # torch takes seconds to import

    model = config.open_model()
    export(model, config.to, config.out)
    print(f"{config.to}: {config.out}")
    return 0
