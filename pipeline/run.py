"""`wit shards`: run the list of stages on a corpus directory.

Only `build` knows DuckDB; it is imported when there is something to build, so that
`wit shards --help` answers at once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from pipeline.config import ShardsConfig
from wit.config import load


def with_engine(argv: Sequence[str]) -> list[str]:
    """`--engine NAME`, short for `--engine.name NAME`, `--rank` and `--world` written out."""
    full = [re.sub(r"^--engine(?==|$)", "--engine.name", argument) for argument in argv]
    return [re.sub(r"^--(rank|world)(?==|$)", r"--engine.\1", argument) for argument in full]


def main(argv: Sequence[str]) -> int:
    """Build a corpus; without --input, that of the embedded sample."""
    config = load(ShardsConfig, with_engine(argv), prog="wit shards")
    from pipeline.build import build

    if config.input:
        build(config)
    else:
        from pipeline.sample.command import served

        with served(config) as served_config:
            build(served_config)
    if config.upload and not config.until and config.engine.world == 1:
        from pipeline.remote import upload

        print(upload(config.corpus, config.upload), file=sys.stderr)
    return 0
