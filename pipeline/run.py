"""`wit shards`: run the list of stages on a corpus directory.

Only `build` knows DuckDB; it is imported when there is something to build, so that
`wit shards --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import ShardsConfig
from wit.config import load


def main(argv: Sequence[str]) -> int:
    """Build a corpus; without --input, that of the embedded sample."""
    config = load(ShardsConfig, argv, prog="wit shards")
    from pipeline.build import build

    if config.input:
        build(config)
        return 0
    from pipeline.sample.command import served

    with served(config) as config:
        build(config)
    return 0
