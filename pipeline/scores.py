"""Stage 28: the bounds on scores that come with the metadata, as one row of numbers."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import ScoreRule, ShardsConfig
from pipeline.context import Context, Counts
from wit.errors import InputError
from wit.schema import COLUMN_NAMES

SIGNS = {"similarity": 1, "nsfw": -1, "watermark": -1, "aesthetic": 1}  # is high good?


def params(config: ShardsConfig) -> dict[str, Any]:
    """The rules."""
    return config.scores.model_dump()


def scores(context: Context) -> Counts:
    """Write one row with NAME_min and NAME_max of each score; null is no bound.

    Raises:
        InputError: a rule on a score that no row has.
    """
    from pipeline.engine import sql_text

    bounds: dict[str, float | None] = {}
    with context.connect() as con:
        for name, sign in SIGNS.items():
            rule = ScoreRule.model_validate(context.params[name])
            low, high = rule.min, rule.max
            if rule != ScoreRule():
                given = {"ingest": context.table("10_ingest"), "score": name, "sign": sign}
                query = sql_text("28_top.sql")
                rows, cut = con.execute(query, {**given, "top": rule.top or 1.0}).fetchall()[0]
                if not rows:
                    raise InputError(
                        f"scores.{name}: no row of the input has this score: drop the rule, or name"
                        f" the column one of {', '.join(COLUMN_NAMES[name])}"
                    )
                if rule.top and sign > 0:
                    low = cut if low is None else max(low, cut)
                elif rule.top:
                    high = cut if high is None else min(high, cut)
            bounds |= {f"{name}_min": low, f"{name}_max": high}
    table = {name: pa.array([value], pa.float64()) for name, value in bounds.items()}
    pq.write_table(pa.table(table), context.out / "rows.parquet")
    return Counts(1, 1)
