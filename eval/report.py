"""What an evaluation leaves behind: a table to read, JSON and Parquet to keep.

For each set and task, OUT/SET-TASK.json holds the numbers with their intervals and everything
they depend on, and OUT/SET-TASK.parquet the prediction for every sample, so that two models
can later be compared sample by sample.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from eval.features import BadSample
from eval.stats import Interval
from wit.config import fingerprint, write_json


@dataclass(frozen=True)
class Metric:
    """One number, as a share of 1, with all that is needed to judge it."""

    name: str
    value: float
    interval: Interval
    n: int  # samples behind it
    chance: float


@dataclass(frozen=True)
class Result:
    """One task on one set.

    Attributes:
        protocol: what was measured and how: data, prompts, preprocessing, tie rule. Numbers
            compare only where its hash is equal.
        model: which checkpoint was measured.
        predictions: one row for each sample.
    """

    set: str
    task: str
    metrics: tuple[Metric, ...]
    protocol: dict[str, Any]
    model: dict[str, Any]
    predictions: pa.Table = field(repr=False)
    bad: tuple[BadSample, ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "set": self.set,
            "task": self.task,
            "metrics": {m.name: _metric_json(m) for m in self.metrics},
            "protocol": self.protocol,
            "protocol_hash": fingerprint(self.protocol),
            "model": self.model,
            "bad_samples": [asdict(bad) for bad in self.bad],
            "notes": list(self.notes),
        }


def _metric_json(metric: Metric) -> dict[str, Any]:
    return {
        "value": metric.value,
        "interval_95": [metric.interval.low, metric.interval.high],
        "interval_method": metric.interval.method,
        "n": metric.n,
        "chance": metric.chance,
    }


def save(result: Result, out: Path) -> None:
    """Write the predictions, then the JSON that vouches for them."""
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{result.set}-{result.task}"
    temporary = out / f"{stem}.parquet.tmp"
    pq.write_table(result.predictions, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(out / f"{stem}.parquet")
    write_json(result.as_json(), out / f"{stem}.json")


def print_table(results: Iterable[Result], console: Console) -> None:
    """All numbers, in per cent."""
    table = Table(
        title="in per cent; intervals are 95%", title_justify="left", box=SIMPLE, pad_edge=False
    )
    table.add_column("set", overflow="fold")  # the only column that gives way in narrow windows
    table.add_column("metric", no_wrap=True)
    for column in ("value", "interval", "chance", "n"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        for i, metric in enumerate(result.metrics):
            table.add_row(
                result.set if i == 0 else "",
                metric.name,
                f"{100 * metric.value:.1f}",
                f"{100 * metric.interval.low:.1f} – {100 * metric.interval.high:.1f}",
                f"{100 * metric.chance:.1f}",
                f"{metric.n:,}",
                end_section=i == len(result.metrics) - 1,
            )
    console.print(table)
    for result in results:
        for note in result.notes:
            console.print(f"{result.set}: {note}", highlight=False, markup=False)


def last_line(results: Sequence[Result]) -> str | None:
    """`zero-shot top-1 NN.N% (chance N.N%)` of the first classification set, if there is one."""
    for result in results:
        for metric in result.metrics:
            if result.task == "zeroshot" and metric.name == "top-1":
                return (
                    f"zero-shot top-1 {100 * metric.value:.1f}% (chance {100 * metric.chance:.1f}%)"
                )
    return None
