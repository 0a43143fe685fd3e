"""`wit embed`: features of pictures or captions, for search, clustering or filtering."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from train.options import ModelOptions
from wit.config import load


class EmbedConfig(ModelOptions):
    """Write the features of pictures or captions. The same command goes on where it was killed."""

    input: CliPositionalArg[Path]
    """corpus, folder of tars or one tar; folder of pictures; captions in .txt (one a line),
    .parquet, .csv, .tsv or .jsonl"""
    out: Path
    """Folder for the features, in parts 00000.parquet, 00001.parquet, ..."""
    what: Literal["images", "captions"] | None = None
    """What of a tar is embedded; its images if not given."""
    column: str | None = None
    """Column of the captions in a table; caption or text if not given."""
    format: Literal["parquet", "npy"] = "parquet"
    """parquet: columns key and feature; npy: the features in an .npy beside the keys."""
    normalize: bool = True
    """Scale features to length 1."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the features in the files."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the towers."""
    batch_size: int = Field(default=64, ge=1)
    """Pictures or captions encoded at once."""
    part: int = Field(default=8192, ge=1)
    """Samples of one part: what is lost at most by a kill."""
    threads: int = Field(default=4, ge=1)
    """Threads that read and decode."""
    max_pixels: int = Field(default=100_000_000, ge=1)
    """Pictures that declare more pixels than this are not decoded."""


def main(argv: Sequence[str]) -> int:
    """Embed, and say what was left out and why."""
    config = load(EmbedConfig, argv, prog="wit embed")
    from train.embed_sources import items

    found, what = items(config.input, config.what, config.column)
    from train.embed import embed  # torch takes seconds to import

    manifest = embed(config.open_model(), found, what, config)
    for reason, count in sorted(manifest["reasons"].items()):
        print(f"left out: {count:,} {reason}")
    print(f"{manifest['rows']:,} of {manifest['samples']:,} {what}: {config.out}")
    return 0
