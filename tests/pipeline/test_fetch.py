"""Stage 60 with real downloading processes against a real server."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.context import Context
from pipeline.fetch import FOLDER, Part, _check_counts, _result, fetch, params, shard_size
from pipeline.progress import Progress
from wit.errors import WitError
from wit.image import decode
from wit.shard import read_member

GOOD, BAD = 205, 20  # URLs: three shards


def jpeg(i: int, size: int = 48) -> bytes:
    pixels = np.random.default_rng(i).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def write(folder: Path, **columns: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "rows.parquet")


def context(tmp_path: Path, web: Any, urls: list[str], out: str = "out") -> Context:
    """The tables of the stages before; row i has rank len(urls) - i, so the order is reversed."""
    from pipeline.config import ShardsConfig

    n = len(urls)
    rows = pa.array(range(n), pa.int64())
    source = tmp_path / "in" / "rows.csv"
    source.parent.mkdir(exist_ok=True)
    source.write_text("url,caption\n")
    inputs = {name: tmp_path / name for name in ("10_ingest", "12_urls", "50_balance")}
    local = [not url.startswith("http") for url in urls]
    ranks = pa.array(range(n, 0, -1), pa.uint64())
    write(
        inputs["10_ingest"],
        row=rows,
        rank=ranks,
        source=["rows.csv"] * n,
        local=local,
        url=urls,
    )
    keys = pa.array([urls.index(url) + 1000 for url in urls], pa.uint64())
    write(inputs["12_urls"], row=rows, url_key=keys)
    reasons = ["over_cap" if "unwanted" in url else None for url in urls]
    write(inputs["50_balance"], row=rows, reason=pa.array(reasons, pa.string()))
    config = ShardsConfig.model_validate(
        {
            "input": [source],
            "corpus": tmp_path / "corpus",
            "fetch": {
                "resolve": {"*.test": web.address},
                "timeout": 2.0,
                "deadline": 4.0,
                "retries": 1,
                "backoff": 0.01,
                "threads": 8,
            },
            "image": {"size": 32},
        }
    )
    target = tmp_path / out
    target.mkdir()
    progress = Progress("60_fetch", io.StringIO())
    return Context(config, params(config), inputs, target, tmp_path, progress)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    }


def test_a_download_from_end_to_end(tmp_path: Path, web: Any, capfd: Any) -> None:
    good = [f"http://h{i % 7}.test/{i}.jpg" for i in range(GOOD)]
    for i in range(GOOD):
        web.body(f"/{i}.jpg", jpeg(i, 48 if i % 2 else 24))
    web.in_turn("/0.jpg", 500, data=jpeg(0, 24))
    bad = [f"http://h.test/missing{i}.jpg" for i in range(BAD - 2)]
    bad += ["http://127.0.0.1/x", f"http://{web.address}/1.jpg"]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "here.jpg").write_bytes(jpeg(999, 24))
    (tmp_path / "secret.jpg").write_bytes(jpeg(998))
    local = ["here.jpg", "../secret.jpg"]
    urls = [*good, *bad, *local, "http://h.test/unwanted.jpg", good[3], good[3]]
    ctx = context(tmp_path, web, urls)

    fetch(ctx)

    rows = pq.read_table(ctx.out / "rows.parquet").to_pylist()
    wanted = list(dict.fromkeys(url for url in reversed(urls) if "unwanted" not in url))
    names = [("local:0:" + url) if url in local else url for url in wanted]
    assert [row["url"] for row in rows] == names  # the order of rank, each once
    by_url = {row["url"].removeprefix("local:0:"): row for row in rows}
    assert web.hits["/unwanted.jpg"] == 0
    assert web.hits["/3.jpg"] == 1
    assert web.hits["/0.jpg"] == 2
    for i, url in enumerate(good):
        row = by_url[url]
        original = jpeg(i, 48 if i % 2 else 24)
        assert (row["reason"], row["status"], row["format"]) == (None, "success", "JPEG")
        assert (row["original_width"], row["width"]) == ((48, 32) if i % 2 else (24, 24))
        with (ctx.out / FOLDER / row["tar"]).open("rb") as tar:
            image = read_member(tar, row["offset"], row["size"])
        assert (image == original) == (i % 2 == 0)
        difference = np.abs(
            np.asarray(decode(original, 10**6).resize((24, 24))).astype(int)
            - np.asarray(decode(image, 10**6).resize((24, 24)))
        )
        assert difference.mean() < 12  # it is this picture, not its neighbour's
    assert {by_url[url]["reason"] for url in bad[:-2]} == {"http_404"}
    assert {by_url[url]["reason"] for url in bad[-2:]} == {"private_address"}
    assert by_url["here.jpg"]["reason"] is None
    assert by_url["../secret.jpg"]["reason"] == "no_file"
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == ""

    check_resume(tmp_path, web, urls, ctx.out)


def check_resume(tmp_path: Path, web: Any, urls: list[str], whole: Path) -> None:
    """A second run into what a killed one left fetches the missing shard alone, and every byte
    comes out the same, in another number of processes and after other arrival times."""
    before, hits = files(whole), web.hits.total()
    assert len([name for name in before if name.endswith(".tar")]) == 3
    ctx = context(tmp_path, web, urls, "again")
    shutil.copytree(whole, ctx.out, dirs_exist_ok=True)
    (ctx.out / "rows.parquet").unlink()
    (ctx.out / FOLDER / "000001_stats.json").write_text('{"count": 1')  # killed while writing
    tar = ctx.out / FOLDER / "000001.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    (ctx.out / ".attempt-1").mkdir()
    fetch(ctx)
    assert files(ctx.out) == before
    fetched_again = web.hits.total() - hits
    assert 60 <= fetched_again <= 100


def test_nothing_to_fetch(tmp_path: Path, web: Any) -> None:
    ctx = context(tmp_path, web, ["http://h.test/unwanted.jpg"])
    fetch(ctx)
    assert pq.read_table(ctx.out / "rows.parquet").num_rows == 0
    assert list((ctx.out / FOLDER).iterdir()) == []


@pytest.mark.parametrize(("urls", "size"), [(1, 100), (1600, 100), (4500, 282), (10**9, 10_000)])
def test_shards_depend_on_the_list_alone(urls: int, size: int) -> None:
    assert shard_size(urls) == size


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"count": 3}, "lost samples"),
        ({"successes": 1}, "lost samples"),
        ({"failed_to_resize": 1}, "lost samples"),
        ({}, "not the URLs of the list"),
    ],
)
def test_lost_samples_stop_the_stage(tmp_path: Path, change: dict[str, int], says: str) -> None:
    stats = {"count": 2, "successes": 2, "failed_to_download": 0, "failed_to_resize": 0}
    (tmp_path / "000000_stats.json").write_text(json.dumps(stats | {"status_dict": {}} | change))
    listed = pa.table({"url": ["a", "b"]})
    found = pa.table({"url": ["b", "a"]})
    with pytest.raises(RuntimeError, match=says):
        _check_counts(tmp_path, Part(0, 0, 0, 2), listed, found)


def test_a_killed_process_is_one_line_and_not_a_hang() -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        future = pool.submit(os._exit, 9)
        with pytest.raises(WitError, match=re.escape("lower --fetch.processes")):
            _result(future)  # type: ignore[arg-type]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        future = pool.submit(os.listdir, tmp_path / "absent")
        with pytest.raises(WitError, match="finished shards are kept"):
            _result(future)  # type: ignore[arg-type]


def test_a_local_image_that_changed_is_read_again(run_until: Any, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    names = ["a.jpg", "b.jpg", "../out.jpg", "missing.jpg", "null\0.jpg"]
    lines = [json.dumps({"image": name, "caption": "a dog in the park"}) for name in names]
    (here / "rows.jsonl").write_text("\n".join(lines))
    for i, name in enumerate(names[:2]):
        (here / name).write_bytes(jpeg(i))

    def run(folder: Path) -> Any:
        given = {"input": [folder], "corpus": tmp_path / "corpus", "fetch": {"processes": 1}}
        return run_until("60_fetch", queries=["dog"], **given)

    def hashes(tables: Any) -> dict[str, str | None]:
        return {row["url"].removeprefix("local:0:"): row["sha256"] for row in tables("60_fetch")}

    before = hashes(run(here))
    assert run(here).built() == []
    (here / "a.jpg").touch()
    assert run(here).built() == []
    shutil.copytree(here, there, copy_function=shutil.copyfile)  # with times of its own
    assert run(there).built() == []
    (here / "a.jpg").write_bytes(jpeg(2))
    changed = run(here)
    assert changed.built() == ["60_fetch"]
    new = hashlib.sha256(jpeg(2)).hexdigest()
    assert hashes(changed) == before | {"a.jpg": new}
