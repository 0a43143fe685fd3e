from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit.errors import InputError
from wit.uids import read_uids

UIDS = ["00000000000000000000000000000001", "ffeeddccbbaa99887766554433221100"]


def halves(uids: list[str]) -> np.ndarray:
    """As DataComp publishes uids: the two halves of their 128 bits."""
    pairs = [(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids]
    return np.array(pairs, dtype="u8,u8")


@given(st.lists(st.integers(0, 2**128 - 1), min_size=1, max_size=20))
def test_halves(tmp_path_factory: pytest.TempPathFactory, numbers: list[int]) -> None:
    uids = [f"{number:032x}" for number in numbers]
    path = tmp_path_factory.mktemp("uids") / "a.npy"
    np.save(path, halves(uids))
    assert read_uids(path).to_pylist() == uids


def test_every_form(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", halves(UIDS))
    (tmp_path / "a.txt").write_text("\n".join(UIDS) + "\n\n", "utf-8")
    (tmp_path / "a.csv").write_text("uid\r\n" + "\r\n".join(UIDS), "utf-8")
    pq.write_table(pa.table({"n": [1, 2], "uid": UIDS}), tmp_path / "a.parquet")
    for name in ("a.npy", "a.txt", "a.csv", "a.parquet"):
        assert read_uids(tmp_path / name).to_pylist() == UIDS


def test_what_is_no_list(tmp_path: Path) -> None:
    np.save(tmp_path / "numbers.npy", np.arange(3))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01")
    pq.write_table(pa.table({"id": [1]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no", "utf-8")
    (tmp_path / "uids.json").write_text("[]", "utf-8")
    (tmp_path / "empty.txt").write_text("uid\n", "utf-8")
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe")
    for path in tmp_path.iterdir():
        with pytest.raises(InputError, match=path.name):
            read_uids(path)
    with pytest.raises(InputError, match="no such list"):
        read_uids(tmp_path / "absent.txt")
