"""`wit merge`: two corpora into one, without fetching again.

With --append this is the incremental build: metadata that is new becomes a corpus of its own, and
what is new in it follows the shards that stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import CliPositionalArg

from pipeline.reshard import CutConfig
from wit.config import load


class MergeConfig(CutConfig):
    """Join two corpora into a third, without the pairs of the second that the first holds.

    A pair of the second corpus goes when the first has the same pair (uid), the same image
    (sha256) or one that looks alike (perceptual hash).
    """

    first: CliPositionalArg[Path]
    """corpus whose pairs all stay"""
    second: CliPositionalArg[Path]
    """corpus whose pairs are added"""
    out: Path
    """corpus directory to write"""
    append: bool = False
    """keep the shards of the first as they are, and let new ones follow"""
    phash_distance: Annotated[int, Field(ge=0, le=3)] = 3
    """most differing bits of two perceptual hashes of the same picture"""


def main(argv: Sequence[str]) -> int:
    """`wit merge`."""
    config = load(MergeConfig, argv, prog="wit merge")
    from pipeline.recut import Cut, Source, recut

    second = Source(config.second, None, known(config))
    about = {"phash_distance": config.phash_distance}
    sources: list[Source] = [Source(config.first), second]
    cut = Cut(config.shard_size, config.shard_bytes)
    print(recut(sources, config.out, cut, about, config.append))
    return 0


def known(config: MergeConfig) -> dict[str, str]:
    """uid of each pair of the second corpus that the first has already -> why."""
    import tempfile

    from pipeline.config import EngineConfig
    from pipeline.dedupe import block_masks
    from pipeline.engine import connect, copy, sql_text

    with tempfile.TemporaryDirectory() as folder, connect(EngineConfig(), Path(folder)) as con:
        tables = {
            "first": str(config.first / "pairs" / "*.parquet"),
            "second": str(config.second / "pairs" / "*.parquet"),
        }
        hashes = Path(folder) / "hashes.parquet"
        copy(con, "merge_hashes.sql", tables, hashes)
        for i, mask in enumerate(block_masks()):
            given = {"hashes": str(hashes), "mask": mask, "phash_distance": config.phash_distance}
            copy(con, "merge_near.sql", given, Path(folder) / f"near-{i:02d}.parquet")
        near = {"near": str(Path(folder) / "near-*.parquet")}
        return dict(con.execute(sql_text("merge_known.sql"), {**tables, **near}).fetchall())
