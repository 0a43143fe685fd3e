"""90_pairs: the same rows however they are cut into files, each with the uid of what stayed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from pipeline.config import ShardsConfig
from pipeline.context import Context
from pipeline.pairs import INPUTS, pairs
from wit.progress import Progress


def made(corpus: Path, out: Path, rows_per_file: int) -> list[dict[str, Any]]:
    """The stage alone, on the work tables of a corpus."""
    out.mkdir()
    inputs = {name: corpus / "stages" / name for name in INPUTS}
    progress = Progress("90_pairs", io.StringIO())
    config = ShardsConfig.model_validate({"engine": {"threads": 1}})
    pairs(Context(config, {}, inputs, out, corpus, progress), rows_per_file)
    sizes = [pq.read_metadata(path).num_rows for path in sorted((out / "pairs").iterdir())]
    assert set(sizes[:-1]) <= {rows_per_file}
    assert 0 < sizes[-1] <= rows_per_file
    rows: list[dict[str, Any]] = pq.read_table(out / "pairs").to_pylist()
    return rows


@pytest.mark.parametrize("rows_per_file", [29, 100])
def test_files_don_t_matter(corpus: Path, tmp_path: Path, rows_per_file: int) -> None:
    published = pq.read_table(corpus / "pairs").to_pylist()
    assert made(corpus, tmp_path / "cut", rows_per_file) == published


def test_duplicates_name_what_stayed(corpus: Path, tmp_path: Path) -> None:
    """By a join of everything with everything."""
    stages = corpus / "stages"
    found = {row["row"]: row["duplicate_of"] for row in made(corpus, tmp_path / "cut", 50)}
    given = [f"SELECT row, reason, kept_row FROM '{stages}/{name}/*.parquet'"
             for name in ("40_dedupe", "70_images")]  # fmt: skip
    query = f"""SELECT gone.row, kept.uid FROM ({" UNION ALL ".join(given)}) AS gone
        JOIN '{stages}/10_ingest/*.parquet' AS kept ON kept.row = gone.kept_row
        WHERE gone.reason IS NOT NULL"""
    with duckdb.connect() as con:
        wanted = dict(con.execute(query).fetchall())
    assert len(wanted) > 10
    assert found == {row: wanted.get(row) for row in found}
