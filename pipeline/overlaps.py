"""Evaluation sets, hashed as the downloaded images are, to find pairs that overlap them.

The paper keeps such pairs and reports accuracy without them (section 5); here they are dropped by
default, and either way the table `overlaps` says which image of which set was met.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import ShardsConfig
from pipeline.dedupe import block_masks, phash
from pipeline.store import HASH_SIDE
from wit.errors import InputError
from wit.image import ImageError, load
from wit.progress import Progress
from wit.shard import IMAGE_EXTS, read_groups, read_member

EVALUATION = pa.schema(
    [("set", pa.string()), ("key", pa.string()), ("sha256", pa.string()), ("phash", pa.uint64())]
)
SQL_FILES = ("70_overlap_near.sql", "70_overlaps.sql", "70_overlap_rows.sql")
BATCH = 1000


def files(config: ShardsConfig) -> list[Path]:
    """The tars of the evaluation sets.

    Raises:
        InputError: a folder without any.
    """
    return [tar for folder in config.dedupe.evaluation for tar in _tars(folder)]


def _tars(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.tar")) if folder.is_dir() else []
    if not found:
        raise InputError(
            f"{folder}: no *.tar in it: give a webdataset folder to --dedupe.evaluation"
        )
    return found


def in_words(how: str, distance: int | None) -> str:
    """How it is known that a pair shows an image of an evaluation set."""
    match how:
        case "sha256":
            return "same bytes"
        case "phash":
            return f"{distance} bits of the hash differ"
        case _:
            return "alike by the features of a model"


def write_evaluation(config: ShardsConfig, target: Path, progress: Progress) -> int:
    """Hash every image of the evaluation sets; returns their number."""
    total = 0
    with pq.ParquetWriter(target, EVALUATION, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for row in _images(config):
            rows.append(row)
            total += 1
            if len(rows) == BATCH:
                writer.write_table(pa.Table.from_pylist(rows, EVALUATION))
                rows.clear()
                progress(total, total, "evaluation images")
        writer.write_table(pa.Table.from_pylist(rows, EVALUATION))
    return total


def _images(config: ShardsConfig) -> Iterator[dict[str, Any]]:
    """Set, key and hashes of each image; one that can't be decoded has no perceptual hash."""
    for folder in config.dedupe.evaluation:
        for tar in _tars(folder):
            with tar.open("rb") as file:
                for key, group in read_groups(tar):
                    ext = next((ext for ext in IMAGE_EXTS if ext in group), None)
                    if ext is None:
                        continue
                    data = read_member(file, group[ext].offset, group[ext].size)
                    yield {
                        "set": folder.name,
                        "key": key,
                        "sha256": hashlib.sha256(data).hexdigest(),
                        "phash": _hash(data, config.image.max_pixels),
                    }


def _hash(data: bytes, max_pixels: int) -> int | None:
    try:
        return phash(load(data, max_pixels, HASH_SIDE, grey=True).image)
    except ImageError:
        return None


def find(con: Any, scratch: Path, fetch: str, distance: int, target: Path) -> None:
    """Write which fetched images overlap: url_key, set, key, how, distance.

    Args:
        con: a DuckDB connection.
        scratch: folder that holds `evaluation.parquet`.
        fetch: work table of the download.
        distance: most differing bits of two perceptual hashes.
    """
    from pipeline.engine import copy

    tables = {"fetch": fetch, "evaluation": str(scratch / "evaluation.parquet")}
    for i, mask in enumerate(block_masks()):
        given = {**tables, "mask": mask, "phash_distance": distance}
        copy(con, "70_overlap_near.sql", given, scratch / f"overlap-{i:02d}.parquet")
    near = {"near": str(scratch / "overlap-*.parquet")}
    copy(con, "70_overlaps.sql", {**tables, **near}, target)
