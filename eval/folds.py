"""A set that comes in several official splits: the mean over them, as the paper reports it.

STL-10 has ten folds of its training images and one test set; UCF101 and HMDB51 have three splits of
all their videos (CLIP paper, appendix A.3). A task is run on each fold by itself, with its own
training data, and knows nothing of the others.

Shapes: F folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from eval import stats
from eval.evalset import EvalSet
from eval.features import BadSample
from eval.report import Metric, Result, Table
from eval.results import measures_of


def mean(parts: Sequence[Result], folds: Sequence[EvalSet], resamples: int, seed: int) -> Result:
    """One result out of one for each fold.

    A number is the mean of the folds'. Its interval draws test images (their groups, if they have
    any) for all folds at once, since folds may share them; where predictions have no known form it
    is Student's over folds.
    """
    predictions = _joined(parts, folds)
    names = [metric.name for metric in parts[0].metrics]
    names = [name for name in names if all(_has(part, name) for part in parts)]
    known = measures_of(predictions, names, int(parts[0].protocol.get("positive", 1)))
    found = []
    for name in names:
        each = [next(m for m in part.metrics if m.name == name) for part in parts]
        value_F = np.array([metric.value for metric in each])
        if name in known.values:
            interval = stats.bootstrap(known.values[name], known.cluster_N, resamples, seed)
        else:
            interval = stats.t_interval(value_F)._replace(method="t over folds")
        samples = len(set(predictions["key"].to_pylist()))
        chance = float(np.mean([metric.chance for metric in each]))
        found.append(Metric(name, float(value_F.mean()), interval, samples, chance))
    first = parts[0]
    notes = [f"mean over {len(parts)} folds"]
    for part, fold in zip(parts, folds, strict=True):
        notes += [f"{_name(fold)}: {note}" for note in part.notes]
    return Result(
        first.set,
        first.task,
        tuple(found),
        _protocol(parts),
        predictions,
        bad=_each_once(parts),
        notes=tuple(notes),
        tables=(_by_fold(parts, folds, names), *_tables(parts, folds)),
        main=first.main,
    )


def _has(part: Result, name: str) -> bool:
    return any(metric.name == name for metric in part.metrics)


def _name(fold: EvalSet) -> str:
    """What tells a fold from the others: the split of its training data, or its own."""
    if fold.train is not None and fold.train.split[-1:].isdigit():
        return fold.train.split
    return fold.split


def _joined(parts: Sequence[Result], folds: Sequence[EvalSet]) -> pa.Table:
    """All predictions, with the fold of each and the group that is drawn with it."""
    tables = []
    for number, (part, fold) in enumerate(zip(parts, folds, strict=True), 1):
        table = part.predictions
        group = {sample.key: sample.meta.get("group", sample.key) for sample in fold.samples}
        column = [group.get(str(key), str(key)) for key in table["key"].to_pylist()]
        if "group" in table.column_names:
            table = table.drop_columns("group")
        table = table.append_column("group", pa.array(column))
        tables.append(table.append_column("fold", pa.array([number] * len(table), pa.int64())))
    return pa.concat_tables(tables, promote_options="permissive")


def _protocol(parts: Sequence[Result]) -> dict[str, Any]:
    """What all folds share, and lists of what they don't."""
    found: dict[str, Any] = {"folds": len(parts)}
    for key, value in parts[0].protocol.items():
        values = [part.protocol.get(key) for part in parts]
        found[key] = value if all(other == value for other in values) else values
    return found


def _each_once(parts: Sequence[Result]) -> tuple[BadSample, ...]:
    return tuple(dict.fromkeys(bad for part in parts for bad in part.bad))


def _by_fold(parts: Sequence[Result], folds: Sequence[EvalSet], names: Sequence[str]) -> Table:
    rows: list[tuple[Any, ...]] = []
    for part, fold in zip(parts, folds, strict=True):
        values = {metric.name: metric.value for metric in part.metrics}
        rows.append((_name(fold), *(values[name] for name in names)))
    spread = np.array([row[1:] for row in rows]).std(axis=0, ddof=1)
    rows.append(("standard deviation", *spread.tolist()))
    return Table("folds", ("fold", *(f"{name} %" for name in names)), tuple(rows))


def _tables(parts: Sequence[Result], folds: Sequence[EvalSet]) -> list[Table]:
    """Tables of equal form as the mean of their numbers; the others for each fold, not printed."""
    found = []
    for i, table in enumerate(parts[0].tables):
        same = [part.tables[i] for part in parts if i < len(part.tables)]
        if len(same) == len(parts) and all(_form(one) == _form(table) for one in same):
            rows = tuple(
                tuple(map(_mean_cell, zip(*cells, strict=True)))
                for cells in zip(*(one.rows for one in same), strict=True)
            )
            found.append(Table(table.title, table.columns, rows, table.shown))
        else:
            for one, fold in zip(same, folds, strict=False):
                title = f"{one.title}, {_name(fold)}"
                found.append(Table(title, one.columns, one.rows, shown=False))
    return found


def _form(table: Table) -> tuple[Any, ...]:
    first = [row[0] for row in table.rows]
    kinds = [tuple(isinstance(value, float) for value in row) for row in table.rows]
    return table.title, table.columns, first, kinds


def _mean_cell(cells: tuple[Any, ...]) -> Any:
    return float(np.mean(cells)) if isinstance(cells[0], float) else cells[0]
