"""Features that `wit embed` wrote: pictures that show the same by what a model sees in them.

A perceptual hash finds other encodings and sizes, not crops; features of a CLIP model find these
too. The pipeline doesn't run models: it reads files, and works out cosines in blocks. All pairs are
compared, so the work grows with the square of the number of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import ShardsConfig
from wit.errors import InputError
from wit.progress import Progress

Features = npt.NDArray[np.float32]
BLOCK = 2048  # rows compared with as many at a time


def files(config: ShardsConfig) -> list[Path]:
    """All files of features, of the corpus and of evaluation sets."""
    dedupe = config.dedupe
    return [
        file
        for folder in (*dedupe.features, *dedupe.evaluation_features)
        for file in _files(folder)
    ]


def _files(folder: Path) -> list[Path]:
    found = sorted(folder.glob("[0-9]*.parquet")) if folder.is_dir() else []
    if not found:
        raise InputError(f"{folder}: no features there: give a folder that `wit embed` wrote")
    return sorted([*found, *folder.glob("[0-9]*.npy")])


def read(folders: list[Path], column: str) -> tuple[list[str], Features]:
    """The names in `column` (uid or key) and the features, scaled to length 1.

    Raises:
        InputError: not of `wit embed`, without that column, or of different lengths.
    """
    names: list[str] = []
    found: list[Features] = []
    for folder in folders:
        for path in (path for path in _files(folder) if path.suffix == ".parquet"):
            table = _table(path)
            if column not in table.column_names:
                raise InputError(
                    f"{path}: no column {column}: embed a corpus: wit embed CORPUS --out {folder}"
                )
            names += table[column].to_pylist()
            found.append(_matrix(path, table))
    if len({features.shape[1] for features in found}) > 1:
        raise InputError(f"{folders[0]}: features of different lengths: embed all with one model")
    rows = np.concatenate(found)
    return names, rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}: embed again") from None


def _matrix(path: Path, table: pa.Table) -> Features:
    """The features of one part, from its own column or from the .npy beside it."""
    try:
        if "feature" in table.column_names:
            rows = np.stack(table["feature"].to_numpy()) if table.num_rows else np.empty((0, 0))
        else:
            rows = np.load(path.with_suffix(".npy"), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: its features can't be read ({error}): embed again") from None
    if rows.ndim != 2 or len(rows) != table.num_rows or not np.isfinite(rows).all():
        raise InputError(f"{path}: not one row of finite features for each key: embed again")
    return rows.astype(np.float32)


def alike(
    first: Features, second: Features | None, least: float, progress: Progress
) -> Iterator[tuple[int, int]]:
    """Pairs of rows whose cosine is at least `least`, in order; of `first` with itself, each pair
    once and the lower row first, where there is no `second`."""
    other = first if second is None else second
    for start in range(0, len(first), BLOCK):
        block = first[start : start + BLOCK]
        found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        for low in range(start if second is None else 0, len(other), BLOCK):
            near = block @ other[low : low + BLOCK].T >= least
            if second is None and low == start:
                near = np.triu(near, 1)
            rows, columns = np.nonzero(near)
            found.append((rows + start, columns + low))
        rows, columns = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.lexsort((columns, rows))
        yield from zip(rows[order].tolist(), columns[order].tolist(), strict=True)
        progress(min(start + BLOCK, len(first)), len(first), "images compared")
