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
    """uids to take: .txt, .parquet or .npy"""
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
        wanted = read_uids(config.select)
    elif config.sql is not None:
        wanted = query_uids(config.corpus, config.sql)
    source = Source(config.corpus, wanted)
    about = {"select": None if wanted is None else fingerprint(sorted(wanted))}
    cut = Cut(config.shard_size, config.shard_bytes)
    print(recut([source], config.out, cut, about))
    return 0


def read_uids(path: Path) -> frozenset[str]:
    """The uids of a selection.

    Raises:
        InputError: another kind of file, or something in it is no uid.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".npy":
            pairs = np.load(path, allow_pickle=False)
            if pairs.dtype != np.dtype("u8,u8"):
                raise InputError(f"{path}: {pairs.dtype} instead of u8,u8: give a DataComp subset")
            uids = [f"{high:016x}{low:016x}" for high, low in pairs.tolist()]
        elif path.suffix == ".parquet":
            uids = pq.read_table(path, columns=["uid"])["uid"].to_pylist()
        elif path.suffix == ".txt":
            uids = [line.strip().lower() for line in path.read_text("utf-8").splitlines()]
        else:
            raise InputError(f"{path}: give uids as .txt, .parquet or .npy")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}: give a list of uids") from None
    return _checked(path, [uid for uid in uids if uid != ""])


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
