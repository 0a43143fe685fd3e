"""`wit report`: one page about a corpus, or about one run or several.

What lies in a folder tells which it is; the page is made by the half that knows about it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import CliPositionalArg

from wit.config import Settings, load
from wit.errors import ConfigError, InputError, MissingExtra

# what it is: the files that tell, the module with `write(config, out)`, the extra it needs
KINDS = {
    "run": (("metrics.jsonl", "checkpoints"), "eval.runs.build", "eval"),
    "corpus": (("manifest.json", "corpus.duckdb", "stages"), "pipeline.report.build", "pipeline"),
}


class ReportConfig(Settings):
    """Write one HTML file about a corpus, or about one run or several beside each other.

    It needs no network and no other file, holds no scripts, and stays under 10 MB.
    """

    paths: CliPositionalArg[list[Path]]
    """a corpus, or run directories"""
    out: Path | None = None
    """file to write; by default report.html in the corpus or in the first run"""
    samples: Annotated[int, Field(ge=0, le=200)] = 36
    """pairs of the random sample of a corpus"""
    seed: int = 0
    """another seed shows other pairs"""
    pairs: Path | None = None
    """of a run: corpus or folder of shards in which its failures are looked for; by default the
    one it was trained on"""
    failures: Annotated[int, Field(ge=0, le=100_000)] = 500
    """of a run: pairs among which its failures are looked for; 0 leaves them out"""
    memory_limit: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?([KMGT]i?B)$")] = "4GB"
    """of a corpus: memory of the database engine; what doesn't fit goes to disk"""
    threads: Annotated[int, Field(ge=1)] = os.cpu_count() or 1
    """of a corpus: threads of the database engine"""


def kind_of(path: Path) -> str:
    """`run` or `corpus`.

    Raises:
        InputError: the folder is missing, or neither.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give a corpus or a run")
    for kind, (marks, _, _) in KINDS.items():
        if any((path / name).exists() for name in marks):
            return kind
    raise InputError(f"{path}: neither a corpus nor a run; `wit shards` or `wit train` makes one")


def main(argv: Sequence[str]) -> int:
    """Write the page and say where it is."""
    config = load(ReportConfig, argv, prog="wit report")
    kinds = {kind_of(path) for path in config.paths}
    if len(kinds) > 1:
        raise ConfigError("paths hold a corpus and a run: give one kind at a time")
    kind = kinds.pop()
    if kind == "corpus" and len(config.paths) > 1:
        raise ConfigError("paths hold more than one corpus: give one at a time")
    _, module, extra = KINDS[kind]
    out = config.out or config.paths[0] / "report.html"
    if out.is_dir():
        out /= "report.html"
    try:
        half = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("wit", "pipeline", "train", "eval"):
            raise
        raise MissingExtra(missing, extra) from None
    out.parent.mkdir(parents=True, exist_ok=True)
    half.write(config, out)
    print(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0
