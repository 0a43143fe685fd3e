"""`wit reshard`: shards cut anew, or a selection of samples, without fetching again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import CliPositionalArg

from wit.config import Settings, load
from wit.errors import ConfigError, InputError
from wit.uids import read_uids

UID = re.compile(r"[0-9a-f]{32}")


class CutConfig(Settings):
    """How large shards may be."""

    shard_size: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    """samples per shard; keys have four digits for them"""
    shard_bytes: Annotated[int, Field(ge=0)] = 0
    """bytes of images and captions per shard at most; 0 sets no limit"""


class ReshardConfig(CutConfig):
    """Cut the shards of a corpus anew, or select samples of it, into a corpus of its own.

    A selection is a file with one uid a line (.txt), a Parquet file with the column uid, a
    DataComp subset (.npy of u8,u8), or a SQL query over the catalogue whose first column is uid.
    """

    corpus: CliPositionalArg[Path]
    """corpus directory"""
    out: Path
    """corpus directory to write"""
    select: Path | None = None
    """uids to take: .txt, .csv, .parquet or .npy"""
    sql: str | None = None
    """query over the catalogue, e.g. SELECT uid FROM pairs WHERE language = 'en'"""


def main(argv: Sequence[str]) -> int:
    """`wit reshard`."""
    config = load(ReshardConfig, argv, prog="wit reshard")
    if config.select is not None and config.sql is not None:
        raise ConfigError("give --select or --sql, not both")
    from pipeline.recut import Cut, Source, recut
    from wit.config import fingerprint

    wanted = None
    if config.select is not None:
        listed = read_uids(config.select).to_pylist()
        wanted = _checked(config.select, [str(uid).lower() for uid in listed])
    elif config.sql is not None:
        wanted = query_uids(config.corpus, config.sql)
    source = Source(config.corpus, wanted)
    about = {"select": None if wanted is None else fingerprint(sorted(wanted))}
    cut = Cut(config.shard_size, config.shard_bytes)
    print(recut([source], config.out, cut, about))
    return 0


def _checked(where: object, uids: Sequence[object]) -> frozenset[str]:
    for uid in uids:
        if not isinstance(uid, str) or not UID.fullmatch(uid):
            raise InputError(f"{where}: {uid!r} is no uid (32 hex digits)")
    return frozenset(str(uid) for uid in uids)


def query_uids(corpus: Path, sql: str) -> frozenset[str]:
    """The first column of a query over the catalogue.

    Raises:
        InputError: the query fails, or gives something else than uids.
    """
    import duckdb

    from pipeline.catalogue import open_catalogue

    with open_catalogue(corpus) as con:
        try:
            rows = con.execute(sql).fetchall()
        except duckdb.Error as error:
            raise InputError(f"--sql: {str(error).splitlines()[0]}") from None
    return _checked("--sql", [row[0] for row in rows])
