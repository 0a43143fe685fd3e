"""Stage 80 on a staged download made by hand."""

from __future__ import annotations

import gc
import io
import json
import random
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.context import Context
from pipeline.fetch import FETCHED
from pipeline.pack import pack, params
from pipeline.run_state import FOLDER
from wit.progress import Progress
from wit.shard import Sample, load_index, read_member, read_shard, write_shard

ROWS, TARS = 300, 12


def picture(key: int) -> bytes:
    return f"image {key} ".encode() * (key % 7 + 1)


def stage_download(folder: Path, keys: list[int], dead: set[int]) -> list[dict[str, Any]]:
    """TARS staged tars with the images of the URL keys, in their order; the dead have none."""
    folder.mkdir(parents=True)
    fetched = []
    for number in range(TARS):
        mine = keys[number::TARS]
        samples = [
            Sample(f"{number}-{key}", picture(key), "jpg", "", {"uid": ""})
            for key in mine
            if key not in dead
        ]
        places = {
            row["key"]: row for row in write_shard(folder / f"{number}.tar", samples).to_pylist()
        }
        for key in mine:
            place = places.get(f"{number}-{key}")
            status = "success" if place else "failed_to_download"
            line = {"url_key": key, "status": status, "ext": "jpg", "tar": f"{number}.tar"}
            if place:
                line |= {"offset": place["offset"], "size": place["size"]}
            fetched.append(line)
    return fetched


def context(tmp_path: Path, shard_size: int, out: str = "out") -> Context:
    """ROWS rows; every tenth URL has several captions; some are dead, some are duplicates."""
    from pipeline.config import ShardsConfig

    rng = random.Random(1)
    rows = list(range(ROWS))
    keys = [row if row % 10 else row // 100 * 100 for row in rows]
    dead = {key for key in set(keys) if key % 9 == 4}
    fetched = stage_download(tmp_path / "60_fetch" / FOLDER, sorted(set(keys)), dead)
    reasons = [
        "http_404" if key in dead else "duplicate_image" if key % 11 == 3 else None for key in keys
    ]
    ranks = [rng.getrandbits(64) for _ in range(ROWS)]
    numbers = pa.array(rows, pa.int64())
    known = pa.array([None if reason == "http_404" else 64 for reason in reasons], pa.int32())
    sha256 = [None if key in dead else f"sha{key}" for key in keys]
    tables = {
        "10_ingest": {
            "row": numbers,
            "rank": pa.array(ranks, pa.uint64()),
            "uid": [f"uid{row}" for row in rows],
            "url": [f"http://x.test/{key}" for key in keys],
            "source": ["rows.csv"] * ROWS,
            "page": pa.array([None] * ROWS, pa.string()),
        },
        "12_urls": {"row": numbers, "url_key": pa.array(keys, pa.uint64())}
        | {"domain": ["x.test"] * ROWS},
        "15_clean": {"row": numbers, "text": [f"caption {row} é" for row in rows]},
        "70_images": {
            "row": numbers,
            "reason": reasons,
            **dict.fromkeys(("width", "height", "original_width", "original_height"), known),
            "sha256": sha256,
        },
        # a row that fell over the cap after the download leaves no trace in the shards
        "75_cap": {"row": numbers, "reason": pa.array([None] * ROWS, pa.string())},
    }
    inputs = {name: tmp_path / name for name in [*tables, "60_fetch"]}
    for name, columns in tables.items():
        inputs[name].mkdir()
        pq.write_table(pa.table(columns), inputs[name] / "rows.parquet")
    table = pa.Table.from_pylist(fetched, schema=FETCHED)
    pq.write_table(table, inputs["60_fetch"] / "rows.parquet")
    config = ShardsConfig.model_validate(
        {"engine": {"threads": 1}, "pack": {"shard_size": shard_size}}
    )
    (tmp_path / out).mkdir()
    progress = Progress("80_pack", io.StringIO())
    return Context(config, params(config), inputs, tmp_path / out, tmp_path, progress)


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Context, list[dict[str, Any]]]:
    """A packed stage with 100 samples a shard, and its attempts in the order of rank."""
    ctx = context(tmp_path, 100)
    pack(ctx)
    names = ("10_ingest", "15_clean", "70_images")
    tables = [pq.read_table(tmp_path / name / "rows.parquet").to_pylist() for name in names]
    merged = [a | b | c for a, b, c in zip(*tables, strict=True)]
    return ctx, sorted(merged, key=lambda row: row["rank"])


def tables(folder: Path) -> list[list[dict[str, Any]]]:
    return [pq.read_table(path).to_pylist() for path in sorted(folder.glob("0*.parquet"))]


def test_samples_stand_in_the_order_of_rank(packed: Any) -> None:
    ctx, attempts = packed
    good = [row for row in attempts if row["reason"] is None]
    assert len(good) > 200
    found = [
        sample for path in sorted((ctx.out / "shards").glob("*.tar")) for sample in read_shard(path)
    ]
    assert [sample.meta["uid"] for sample in found] == [row["uid"] for row in good]
    for i, (sample, row) in enumerate(zip(found, good, strict=True)):
        assert sample.key == f"{i // 100:05d}{i % 100:04d}"
        assert sample.text == row["text"]
        assert sample.image == picture(int(row["url"].rpartition("/")[2]))
        assert sample.meta["sha256"] == row["sha256"]
    assert len({sample.image for sample in found}) < len(found)  # one URL, several captions


def test_sizes_and_index(packed: Any) -> None:
    ctx, attempts = packed
    good = sum(row["reason"] is None for row in attempts)
    sizes = json.loads((ctx.out / "shards" / "sizes.json").read_text())
    assert list(sizes.values()) == [100, 100, good - 200]
    index = load_index(ctx.out).to_pylist()
    rows = pq.read_table(ctx.out / "rows.parquet").to_pylist()
    assert [(row["key"], row["shard"]) for row in rows] == [
        (row["key"], row["shard"]) for row in index
    ]
    by_row = {row["row"]: row for row in attempts}
    for line, row in zip(index, rows, strict=True):
        assert line["uid"] == by_row[row["row"]]["uid"]
        with (ctx.out / "shards" / line["shard"]).open("rb") as tar:
            text = read_member(tar, line["text_offset"], line["text_size"])
        assert text.decode() == by_row[row["row"]]["text"]


def test_tables_hold_every_attempt_in_order(packed: Any) -> None:
    ctx, attempts = packed
    found = [row for table in tables(ctx.out / "shards") for row in table]
    assert [row["uid"] for row in found] == [row["uid"] for row in attempts]
    columns = "url caption key status error_message width height original_width original_height"
    assert list(found[0]) == [*columns.split(), "sha256", "uid"]
    statuses = {None: "success", "http_404": "failed_to_download"}
    for row, attempt in zip(found, attempts, strict=True):
        assert row["status"] == statuses.get(attempt["reason"], "failed_to_resize")
        assert row["error_message"] == attempt["reason"]
        assert (row["key"] is None) == (attempt["reason"] is not None)


def test_statistics_add_up(packed: Any) -> None:
    ctx, _ = packed
    folder = ctx.out / "shards"
    for path, table in zip(sorted(folder.glob("*_stats.json")), tables(folder), strict=True):
        stats = json.loads(path.read_text())
        assert stats["count"] == len(table) == sum(stats["status_dict"].values())
        failed = stats["failed_to_download"] + stats["failed_to_resize"]
        assert stats["count"] == stats["successes"] + failed
        assert stats["status_dict"]["success"] == stats["successes"]
        assert stats["status_dict"]["http_404"] == stats["failed_to_download"]


def test_two_runs_give_the_same_bytes(packed: Any, tmp_path: Path) -> None:
    ctx, _ = packed
    first = {path.name: path.read_bytes() for path in (ctx.out / "shards").iterdir()}
    (ctx.out / "shards" / "00007.tar").write_bytes(b"of a killed run")
    pack(ctx)
    assert {path.name: path.read_bytes() for path in (ctx.out / "shards").iterdir()} == first


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning"
)  # webdataset leaves its files to be collected
def test_webdataset_reads_them(packed: Any) -> None:
    """A loader that knows nothing of us gets the same samples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset
    ctx, attempts = packed
    urls = sorted(str(path) for path in (ctx.out / "shards").glob("*.tar"))
    dataset = webdataset.WebDataset(urls, shardshuffle=False).to_tuple("jpg", "txt", "json")
    good = [row for row in attempts if row["reason"] is None]
    for (image, text, meta), row in zip(dataset, good, strict=True):
        assert image == picture(int(row["url"].rpartition("/")[2]))
        assert text.decode() == row["text"]
        assert json.loads(meta)["uid"] == row["uid"]
    del dataset
    gc.collect()


def test_one_shard_at_the_border(tmp_path: Path) -> None:
    """As many samples as a shard holds: failures after the last one stay in its table."""
    ctx = context(tmp_path, 1000)
    pack(ctx)
    good = pq.read_table(ctx.out / "rows.parquet").num_rows
    exact = tmp_path / "exact"
    exact.mkdir()
    pack(Context(ctx.config, {"shard_size": good}, ctx.inputs, exact, tmp_path, ctx.progress))
    assert json.loads((exact / "shards" / "sizes.json").read_text()) == {"00000.tar": good}
    assert len(tables(exact / "shards")[0]) == ROWS


def test_shards_of_a_number_of_bytes(tmp_path: Path) -> None:
    ctx = context(tmp_path, 1000)
    pack(Context(ctx.config, ctx.params | {"shard_bytes": 2000}, *astuple_rest(ctx)))
    shards = [list(read_shard(path)) for path in sorted((ctx.out / "shards").glob("*.tar"))]
    assert len(shards) > 3
    for shard, following in pairwise(shards):
        held = sum(len(sample.image) for sample in shard)
        assert held <= 2000 < held + len(following[0].image)


def astuple_rest(ctx: Context) -> tuple[Any, ...]:
    return ctx.inputs, ctx.out, ctx.corpus, ctx.progress


def test_the_order_is_a_shuffle(packed: Any) -> None:
    """Neighbours in the input are as far apart in the shards as in a perfect shuffle: a third of
    the whole length on average."""
    ctx, _ = packed
    rows = pq.read_table(ctx.out / "rows.parquet")["row"].to_pylist()
    place = {row: i for i, row in enumerate(rows)}
    apart = [abs(place[row] - place[row + 1]) for row in place if row + 1 in place]
    assert abs(sum(apart) / len(apart) / len(rows) - 1 / 3) < 0.05
