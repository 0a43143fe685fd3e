"""What an evaluation leaves behind: a table to read, JSON and Parquet to keep.

For each set and task, OUT/SET-TASK.json holds the numbers with their intervals and everything
they depend on, and OUT/SET-TASK.parquet the prediction for every sample, so that two models
can later be compared sample by sample.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as Grid

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
class Table:
    """What is neither a metric nor a prediction: a curve, a comparison of prompts.

    Attributes:
        rows: one tuple of plain values for each row, as wide as `columns`. Shares of 1 are in
            columns whose name ends with " %": they are kept as shares and shown in per cent.
        shown: whether it is printed; it is in the JSON in any case.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    shown: bool = True


@dataclass(frozen=True)
class Result:
    """One task on one set.

    Attributes:
        set: name of the set.
        protocol: what was measured and how: data, prompts, preprocessing, tie rule. Numbers
            compare only where its hash is equal.
        main: name of the metric that stands for the set; the first one by default.
        model: which checkpoint was measured. It, the split, and the set's name and suite in the
            registry (empty for other sets) are filled in by `eval.task.evaluate`.
        predictions: one row for each sample, its `key` and what metrics can be computed from.
    """

    set: str
    task: str
    metrics: tuple[Metric, ...]
    protocol: dict[str, Any]
    predictions: pa.Table = field(repr=False)
    model: dict[str, Any] = field(default_factory=dict)
    bad: tuple[BadSample, ...] = ()
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    main: str = ""
    split: str = ""
    entry: str = ""
    group: str = ""

    @property
    def main_metric(self) -> Metric:
        """The number that stands for the set in a suite."""
        return next((m for m in self.metrics if m.name == self.main), self.metrics[0])

    def as_json(self) -> dict[str, Any]:
        return {
            "set": self.set,
            "entry": self.entry,
            "group": self.group,
            "split": self.split,
            "task": self.task,
            "main": self.main_metric.name,
            "metrics": {m.name: _metric_json(m) for m in self.metrics},
            "protocol": self.protocol,
            "protocol_hash": fingerprint(self.protocol),
            "model": self.model,
            "bad_samples": [asdict(bad) for bad in self.bad],
            "notes": list(self.notes),
            "tables": [asdict(table) for table in self.tables],
        }


def _metric_json(metric: Metric) -> dict[str, Any]:
    return {
        "value": metric.value,
        "interval_95": [metric.interval.low, metric.interval.high],
        "interval_method": metric.interval.method,
        "n": metric.n,
        "chance": metric.chance,
    }


def result_name(set_name: str, task: str) -> str:
    """File name, without its extension, of a result."""
    return f"{set_name}-{task}"


def save(result: Result, out: Path) -> None:
    """Write the predictions, then the JSON that vouches for them.

    A result of another checkpoint that stands there is kept, in OUT/ITS-FINGERPRINT.
    """
    out.mkdir(parents=True, exist_ok=True)
    stem = result_name(result.set, result.task)
    _put_aside(out, stem, str(result.model.get("fingerprint", "")))
    temporary = out / f"{stem}.parquet.tmp"
    pq.write_table(result.predictions, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(out / f"{stem}.parquet")
    write_json(result.as_json(), out / f"{stem}.json")


def _put_aside(out: Path, stem: str, fingerprint: str) -> None:
    """Move a result of another checkpoint away; the JSON goes last, for it names the place."""
    try:
        other = json.loads((out / f"{stem}.json").read_text("utf-8"))["model"]["fingerprint"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return  # none, or not one of ours: it is written over
    if not isinstance(other, str) or not re.fullmatch(r"[\w-]+", other) or other == fingerprint:
        return
    folder = out / other
    folder.mkdir(exist_ok=True)
    for name in (f"{stem}.parquet", f"{stem}.json"):
        if (out / name).is_file():
            (out / name).replace(folder / name)


def print_table(results: Iterable[Result], console: Console) -> None:
    """All numbers, in per cent."""
    table = Grid(
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
        for extra in result.tables:
            if extra.shown:
                console.print(grid(f"{result.set}: {extra.title}", extra))
        for note in result.notes:
            console.print(f"{result.set}: {note}", highlight=False, markup=False)


def grid(title: str, table: Table) -> Grid:
    """A table to print."""
    made = Grid(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for i, column in enumerate(table.columns):
        made.add_column(column, justify="right" if i else "left", overflow="fold")
    for row in table.rows:
        made.add_row(*(cell(c, value) for c, value in zip(table.columns, row, strict=True)))
    return made


def cell(column: str, value: Any) -> str:
    """A value of a table as it is shown; shares in per cent."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{100 * value:.1f}" if column.endswith(" %") else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def last_line(results: Sequence[Result]) -> str | None:
    """`zero-shot top-1 NN.N% (chance N.N%)` of the first classification set, if there is one."""
    for result in results:
        for metric in result.metrics:
            if result.task == "zeroshot" and metric.name == "top-1":
                return (
                    f"zero-shot top-1 {100 * metric.value:.1f}% (chance {100 * metric.chance:.1f}%)"
                )
    return None
