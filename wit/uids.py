"""Lists of uids: which samples of a corpus are meant, in the forms that the field uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wit.errors import InputError

HEADERS = ("uid", "key")


def read_uids(path: Path) -> pa.Array:
    """The uids (or keys) in a file, as strings, in its order.

    Args:
        path: .txt or .csv, one a line (a first line `uid` or `key` is a header); .npy, pairs of
            64-bit halves as DataComp publishes them; .parquet, the column uid or key.

    Raises:
        InputError: the file is missing, empty or of another form.
    """
    kind = path.suffix.lower()
    try:
        if kind == ".npy":
            uids = _of_halves(np.load(path, allow_pickle=False))
        elif kind == ".parquet":
            uids = _of_columns(pq.ParquetFile(path))
        elif kind in (".txt", ".csv"):
            lines = [line.strip().strip('"') for line in path.read_text("utf-8").splitlines()]
            lines = lines[1:] if lines and lines[0] in HEADERS else lines
            uids = pa.array([line for line in lines if line], pa.string())
        else:
            raise ValueError("give .txt, .csv, .npy or .parquet")
    except FileNotFoundError:
        raise InputError(f"{path}: no such list of uids; check the path") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a list of uids: {str(error).splitlines()[0]}") from None
    if not len(uids):
        raise InputError(f"{path}: holds no uid")
    return uids


def _of_halves(halves_N: np.ndarray) -> pa.Array:
    if halves_N.dtype.fields is None or [f[0].str for f in halves_N.dtype.fields.values()] != [
        "<u8",
        "<u8",
    ]:
        raise ValueError(f"its type is {halves_N.dtype}, expected u8,u8")
    high, low = halves_N.dtype.names or ("", "")
    both_N2 = np.stack([halves_N[high], halves_N[low]], axis=-1).astype(">u8")
    text = both_N2.tobytes().hex()
    return pa.array([text[i : i + 32] for i in range(0, len(text), 32)], pa.string())


def _of_columns(file: pq.ParquetFile) -> pa.Array:
    name = next((name for name in HEADERS if name in file.schema_arrow.names), None)
    if name is None:
        raise ValueError(f"it has no column uid or key, only {', '.join(file.schema_arrow.names)}")
    return file.read([name])[name].cast(pa.string()).combine_chunks()
