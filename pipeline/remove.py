"""`wit remove`: take opted-out pairs out of a finished corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from wit.config import Settings, load
from wit.errors import ConfigError, InputError


class RemoveConfig(Settings):
    """Take pairs out of a finished corpus: by uid, by sha256 of the image, by URL, by domain.

    Give entries one by one with --entry or in files with --file, one a line.
    """

    corpus: CliPositionalArg[Path] = Path("data/corpus")
    """corpus directory"""
    file: list[Path] = Field(default=[])
    """file with one entry a line; repeat for more"""
    entry: list[str] = Field(default=[])
    """a uid, sha256, URL or domain; repeat for more"""


def main(argv: Sequence[str]) -> int:
    """Apply opt-outs to one corpus."""
    config = load(RemoveConfig, argv, prog="wit remove")
    from pipeline import optout
    from pipeline.removal import OLD, remove

    lines = list(config.entry)
    for path in config.file:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: {error}: give a text file") from None
        optout.parse(text.splitlines(), str(path))
        lines += text.splitlines()
    if not lines and not (config.corpus / OLD).exists():
        raise ConfigError("nothing to remove: give --entry or --file")
    print(remove(config.corpus, optout.parse(lines, "--entry")))
    return 0
