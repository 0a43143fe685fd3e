"""Results on disk: read back, and turned into functions that can be resampled.

Shapes: N samples or queries, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eval import metrics
from eval.metrics import Weighted, Weights
from wit.errors import InputError

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class Stored:
    """One result of one model: the JSON, and the predictions when they are asked for."""

    path: Path
    data: Mapping[str, Any]

    @property
    def name(self) -> tuple[str, str]:
        """Set and task."""
        return str(self.data["set"]), str(self.data["task"])

    @property
    def suite(self) -> str:
        """What it is averaged with: task and group, such as `zeroshot, paper`."""
        task, group = self.data["task"], self.data["group"] or "own sets"
        return str(task) if task == group else f"{task}, {group}"

    @property
    def main(self) -> Mapping[str, Any]:
        """The metric that stands for the set."""
        metric: Mapping[str, Any] = self.data["metrics"][self.data["main"]]
        return metric

    @cached_property
    def predictions(self) -> pa.Table:
        """One row for each sample.

        Raises:
            InputError: the Parquet file is missing or is not one.
        """
        path = self.path.with_suffix(".parquet")
        try:
            return pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            first = str(error).splitlines()[0]
            raise InputError(f"{path}: can't be read: {first}; evaluate again") from None


def folder_of(run: Path) -> Path:
    """The results of a run directory, or the folder itself."""
    inside = run / "eval"
    return inside if inside.is_dir() else run


def load(run: Path, skip_older: bool = False) -> list[Stored]:
    """All results of a run directory or of a folder of results, by set and task.

    Args:
        skip_older: leave out results that an older version wrote.

    Raises:
        InputError: there is none, one is damaged, or one is older.
    """
    folder = folder_of(run)
    found = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            data = json.loads(path.read_text("utf-8"))
        except ValueError:
            raise InputError(f"{path}: not JSON; remove it or evaluate again") from None
        if isinstance(data, dict) and "protocol_hash" in data:
            if "main" in data:
                found.append(Stored(path, data))
            elif not skip_older:
                raise InputError(f"{path}: of an older version; evaluate again, or remove it")
    if not found:
        raise InputError(f"{folder}: no results here; run `wit eval` first")
    return found


@dataclass(frozen=True)
class Measures:
    """The metrics of one result as functions of weights, over samples in the order of `key_N`."""

    key_N: NDArray[np.str_]
    cluster_N: NDArray[np.int64]
    values: Mapping[str, Weighted]
    hits: Mapping[str, NDArray[np.bool_]]  # of the metrics that are shares of independent hits


def measures(stored: Stored, keep: NDArray[np.str_] | None = None) -> Measures:
    """What the predictions of a result say; see `measures_of`."""
    positive = stored.data["protocol"].get("positive", 1)
    return measures_of(stored.predictions, stored.data["metrics"], positive, keep)


def measures_of(
    table: pa.Table,
    wanted: Collection[str],
    positive: int = 1,
    keep: NDArray[np.str_] | None = None,
) -> Measures:
    """What predictions of a known form say.

    Those of several folds have a column `fold`; a metric is then its mean over folds.

    Args:
        wanted: names of the metrics.
        positive: the class whose score ROC AUC ranks.
        keep: keys to use, in this order; all by default.

    Returns:
        No metric at all for predictions of another form.
    """
    columns = set(table.column_names)
    keys = _keys(table)
    order = np.arange(len(keys))
    if keep is not None:
        place = {key: i for i, key in enumerate(keys)}
        order = np.array([place[key] for key in keep], np.int64)
    table = table.take(order)
    cluster = next((name for name in ("image", "group") if name in columns), None)
    cluster_N = np.arange(len(order))
    if cluster is not None:
        _, cluster_N = np.unique(table[cluster].to_numpy(), return_inverse=True)
    if "fold" in columns:
        values, hits = _mean_over_folds(table, positive), dict[str, NDArray[np.bool_]]()
    else:
        values, hits = _values(table, positive)
    return Measures(
        np.array(keys)[order],
        cluster_N,
        {name: value for name, value in values.items() if name in wanted},
        {name: h for name, h in hits.items() if name in wanted and cluster is None},
    )


def _values(
    table: pa.Table, positive: int
) -> tuple[dict[str, Weighted], dict[str, NDArray[np.bool_]]]:
    """Metrics of one split, and those of them that are shares of hits."""
    columns = set(table.column_names)
    values: dict[str, Weighted] = {}
    hits: dict[str, NDArray[np.bool_]] = {}
    if {"truth", "score"} <= columns:
        truth_NC = np.stack(table["truth"].to_numpy()).astype(np.int64)
        score_NC = np.stack(table["score"].to_numpy())
        for name in (metrics.MAP_11, metrics.MAP):
            eleven = name == metrics.MAP_11
            values[name] = metrics.mean_average_precision(score_NC, truth_NC, eleven)
    elif {"direction", "rank"} <= columns:
        values = _recalls(table["direction"].to_numpy(), table["rank"].to_numpy())
    elif {"label", "rank"} <= columns:
        label_N, rank_N = (table[name].to_numpy() for name in ("label", "rank"))
        values, hits = _classification(label_N, rank_N)
        if "positive" in columns:
            score_N = table["positive"].to_numpy()
            values[metrics.ROC_AUC] = metrics.roc_auc(score_N, label_N == positive)
    return values, hits


def _mean_over_folds(table: pa.Table, positive: int) -> dict[str, Weighted]:
    fold_N = table["fold"].to_numpy()
    parts = []
    for fold in np.unique(fold_N):
        row_M = np.flatnonzero(fold_N == fold)
        parts.append((row_M, _values(table.take(row_M).drop_columns("fold"), positive)[0]))

    def mean_of(name: str) -> Weighted:
        def value(weight_N: Weights) -> float:
            """Of the folds of which a resample has samples."""
            drawn = [(values[name], weight_N[row_M]) for row_M, values in parts]
            return float(
                np.mean([metric(weight_M) for metric, weight_M in drawn if weight_M.any()])
            )

        return value

    return {name: mean_of(name) for name in parts[0][1]}


def _keys(table: pa.Table) -> list[str]:
    if "direction" in table.column_names:
        sides, queries = table["direction"].to_pylist(), table["query"].to_pylist()
        return [f"{side}\t{query}" for side, query in zip(sides, queries, strict=True)]
    keys = [str(key) for key in table["key"].to_pylist()]
    if "fold" in table.column_names:
        folds = table["fold"].to_pylist()
        return [f"{fold}\t{key}" for fold, key in zip(folds, keys, strict=True)]
    return keys


def _classification(
    label_N: NDArray[np.int64], rank_N: NDArray[np.int64]
) -> tuple[dict[str, Weighted], dict[str, NDArray[np.bool_]]]:
    hits = {metrics.TOP_1: rank_N < 1, metrics.TOP_5: rank_N < 5}
    values = {name: metrics.mean(hit_N) for name, hit_N in hits.items()}
    values[metrics.PER_CLASS] = metrics.mean_per_class(hits[metrics.TOP_1], label_N)
    both_N = (hits[metrics.TOP_1] + hits[metrics.TOP_5].astype(np.float64)) / 2
    values[metrics.TOP_1_5] = metrics.mean(both_N)
    return values, hits


def _recalls(side_N: NDArray[np.str_], rank_N: NDArray[np.int64]) -> dict[str, Weighted]:
    values: dict[str, Weighted] = {}
    for side in ("image to text", "text to image"):
        for k in RECALL_AT:
            values[f"{side} R@{k}"] = _share(rank_N < k, side_N == side)
    first, second = values["image to text R@1"], values["text to image R@1"]
    values[metrics.MEAN_R1] = lambda weight_N: (first(weight_N) + second(weight_N)) / 2
    return values


def _share(hit_N: NDArray[np.bool_], of_N: NDArray[np.bool_]) -> Weighted:
    return lambda weight_N: float((weight_N * hit_N)[of_N].sum() / weight_N[of_N].sum())
