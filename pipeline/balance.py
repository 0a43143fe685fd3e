"""The cap per query, before the download with room for what will be lost, and exact after it."""

from __future__ import annotations

import math
from typing import Any

from pipeline.config import BalanceConfig, ShardsConfig
from pipeline.context import Context

BRING = {"bottom_k": "48_bottom_k.sql", "independent": "48_independent.sql"}
_ROWS = 16  # files whose rows a part takes at a time; only ranks under a bound are sorted
SQL_FILES = ("48_bottom_k.sql", "75_standing.sql", "75_independent.sql", "75_cap.sql")


def params_before(config: ShardsConfig) -> dict[str, Any]:
    """How many pairs a query may bring in before the download."""
    return {"method": config.balance.method, "cap": oversampled(config.balance)}


def oversampled(balance: BalanceConfig) -> int:
    """Pairs of a query to download, so that about `cap` are left."""
    return math.ceil(balance.cap / balance.survival)


def bring(context: Context) -> None:
    """Stage 48: the rows that queries bring in, by keys of queries."""
    from pipeline.parts import Part, key_parts, make_all, make_sql

    tables = {
        "match": context.table("20_match"),
        "standing": context.table("40_dedupe"),
        "queries": context.table("18_queries"),
    }
    file = BRING[context.params["method"]]
    parts = []
    for name, keys in key_parts(context.rows, context.config.engine, _ROWS).items():
        given = {**tables, **keys, "cap": context.params["cap"]}
        parts.append(Part(context.out / name, make_sql, {"file": file, "params": given}))
    make_all(parts, context.config.engine, context.progress)


def params_after(config: ShardsConfig) -> dict[str, Any]:
    """The cap, and whether it was raised for the download."""
    return config.balance.model_dump()


def cap(context: Context) -> None:
    """Stage 75: the cap on what came of the download. Without room for losses before it, every
    pair that a query brought in then is still among its first."""
    from pipeline.engine import copy

    standing, brought = context.out / ".standing.parquet", context.out / ".brought.parquet"
    tables = {
        "ingest": context.table("10_ingest"),
        "queries": context.table("18_queries"),
        "match": context.table("20_match"),
        "dedupe": context.table("40_dedupe"),
        "images": context.table("70_images"),
        "standing": str(standing),
    }
    with context.connect() as con:
        copy(con, "75_standing.sql", tables, standing)
        if context.params["survival"] == 1:
            brought = standing
        else:
            own = {"bottom_k": "48_bottom_k.sql", "independent": "75_independent.sql"}
            given = {**tables, "cap": context.params["cap"], "part": 0, "parts": 1}
            copy(con, own[context.params["method"]], given, brought, context.progress)
        params = {"standing": str(standing), "bring": str(brought)}
        copy(con, "75_cap.sql", params, context.out / "rows.parquet")
