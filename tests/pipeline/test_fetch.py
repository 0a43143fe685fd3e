"""Stage 60 with real downloading processes against a real server."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.context import Context
from pipeline.fetch import PROVENANCE, _check_counts, fetch, params, shard_size
from pipeline.ledger import Ledger, record
from pipeline.pool import Breaker, Pool
from pipeline.run_state import FOLDER, LEDGERS, Part, Run, _result
from pipeline.task import Outcome
from wit.errors import WitError
from wit.image import decode
from wit.progress import Progress
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


def context(tmp_path: Path, web: Any, urls: list[str], out: str = "out", **changes: Any) -> Context:
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
                "connections": 16,
                "host_rate": 0.0,
                "processes": 2,
                **changes,
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
    web.body("/1.jpg", jpeg(1), ETag="not \xff UTF-8", Content_Type="image/jpeg")
    web.status("/missing1", 302, Location="http://h.test/\xff/none")
    bad = [f"http://h.test/missing{i}.jpg" for i in range(BAD - 3)]
    bad.append("http://h.test/missing1")
    bad += ["http://127.0.0.1/x", f"http://{web.address}/1.jpg"]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "here.jpg").write_bytes(jpeg(999, 24))
    (tmp_path / "secret.jpg").write_bytes(jpeg(998))
    local = ["here.jpg", "../secret.jpg"]
    urls = [*good, *bad, *local, "http://h.test/unwanted.jpg", good[3], good[3]]
    ctx = context(tmp_path, web, urls)

    started = time.time()
    fetch(ctx)

    rows = pq.read_table(ctx.out / "rows.parquet").to_pylist()
    wanted = list(dict.fromkeys(url for url in reversed(urls) if "unwanted" not in url))
    names = [("local:0:" + url) if url in local else url for url in wanted]
    assert [row["url"] for row in rows] == names  # the order of rank, each once
    by_url = {row["url"].removeprefix("local:0:"): row for row in rows}
    assert web.hits["/unwanted.jpg"] == 0
    assert web.hits["/3.jpg"] == 1
    assert web.hits["/0.jpg"] == 2
    assert web.hits["/missing0.jpg"] == 1
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
    assert {by_url[url]["reason"] for url in bad[:-3]} == {"http_404"}
    assert by_url["http://h.test/missing1"]["reason"] in ("http_404", "no_url")
    assert {by_url[url]["reason"] for url in bad[-2:]} == {"private_address"}
    assert by_url[good[1]]["final_url"] == good[1]
    assert by_url[good[1]]["http_status"] == 200
    assert (by_url[good[1]]["etag"], by_url[good[1]]["content_type"]) == (
        "not ? UTF-8",
        "image/jpeg",
    )
    assert by_url[good[1]]["bytes"] == len(jpeg(1))
    assert by_url[good[1]]["sha256"] == hashlib.sha256(jpeg(1)).hexdigest()
    assert by_url[bad[0]]["http_status"] == 404
    times = pq.read_table(ctx.corpus / PROVENANCE, page_checksum_verification=True).to_pylist()
    assert [row["url"] for row in times] == names
    assert all(started <= row["fetched_at"].timestamp() <= time.time() for row in times)
    assert by_url["here.jpg"]["reason"] is None
    assert by_url["../secret.jpg"]["reason"] == "no_file"
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == ""

    check_resume(tmp_path, web, urls, ctx.out)


def check_resume(tmp_path: Path, web: Any, urls: list[str], whole: Path) -> None:
    """A second run into what a killed one left fetches what is missing alone, and every byte
    comes out the same, in another number of processes and after other arrival times."""
    before = files(whole)
    assert len([name for name in before if name.endswith(".tar")]) == 3
    ctx = context(tmp_path, web, urls, "again", processes=1)
    shutil.copytree(whole, ctx.out, dirs_exist_ok=True)
    (ctx.out / "rows.parquet").unlink()
    (ctx.out / FOLDER / "000001_stats.json").write_text('{"count": 1')  # killed while writing
    tar = ctx.out / FOLDER / "000001.tar"
    kept = pq.read_table(ctx.out / FOLDER / "000001.parquet").to_pylist()
    tar.write_bytes(tar.read_bytes()[:700])
    ledger = Ledger(ctx.out / LEDGERS / "000001.ledger")  # it had got so far
    known = 0
    for index, row in enumerate(kept[:30]):
        if row["error_message"] == "http_404":
            answer = Outcome(1, index, reason="http_404", http_status=404, final_url=row["url"])
            ledger.append(record(answer, None))
            known += 1
    ledger.close()
    with (ctx.out / LEDGERS / "000001.ledger").open("ab") as file:
        file.write(b"half of a record")
    (ctx.out / ".attempt-1").mkdir()
    hits = web.hits.copy()
    fetch(ctx)
    assert files(ctx.out) == before
    again = web.hits - hits
    del again["/robots.txt"]
    fetchable = [row for row in kept if row["error_message"] not in ("private_address", "no_file")]
    local = [row for row in fetchable if row["url"].startswith("local:")]
    assert again.total() == len(fetchable) - len(local) - known
    assert max(again.values()) == 1


def test_failures_that_may_pass_are_tried_once_more_at_the_end(tmp_path: Path, web: Any) -> None:
    """Down during the whole first pass, up at the end: by then everything else is through."""
    urls = [f"http://h{i % 3}.test/{i}.jpg" for i in range(60)]
    order: list[str] = []

    def answer(path: str, data: bytes, failures: int, code: int) -> None:
        left = [failures]

        def reply(handler: Any) -> None:
            order.append(path)
            status = code if left[0] else 200
            left[0] = max(0, left[0] - 1)
            handler.send_response(status)
            handler.end_headers()
            handler.wfile.write(data if status == 200 else b"")

        web.answers[path] = reply

    for i in range(60):
        flaky, code = (2, 503) if i == 7 else (9, 500) if i == 8 else (1, 404) if i == 9 else (0, 0)
        answer(f"/{i}.jpg", jpeg(i, 24), flaky, code)
    ctx = context(tmp_path, web, urls)
    fetch(ctx)
    rows = {row["url"]: row for row in pq.read_table(ctx.out / "rows.parquet").to_pylist()}
    assert rows[urls[7]]["reason"] is None
    assert rows[urls[8]]["reason"] == "http_5xx"
    assert rows[urls[9]]["reason"] == "http_404"  # which is not tried again
    assert (web.hits["/7.jpg"], web.hits["/8.jpg"], web.hits["/9.jpg"]) == (3, 3, 1)
    assert set(order[-2:]) == {"/7.jpg", "/8.jpg"}


def test_the_breaker_stops_a_download_without_a_network(tmp_path: Path, web: Any) -> None:
    urls = [f"http://h{i}.unknown.invalid/{i}.jpg" for i in range(600)]
    ctx = context(tmp_path, web, urls)
    with pytest.raises(WitError, match=r"(?s)500 of the last 500 URLs failed with dns.*resolver"):
        fetch(ctx)
    assert not list(ctx.out.glob(".attempt-*"))
    never = Breaker(1.0)
    for _ in range(1000):
        never.add("dns")


def test_a_killed_process_is_replaced_and_its_urls_fetched(
    tmp_path: Path, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [f"http://h{i % 5}.test/{i}.jpg" for i in range(200)]
    for i in range(200):
        web.body(f"/{i}.jpg", jpeg(i, 24))
    started = []
    real = Pool._start

    def start(pool: Pool) -> Any:
        started.append(real(pool))
        return started[-1]

    monkeypatch.setattr(Pool, "_start", start)
    taken = Run.take

    def take(run: Run, answer: Any) -> None:
        taken(run, answer)
        if len(started) == 2:
            started[0].process.kill()
            started[1].process.kill()

    monkeypatch.setattr(Run, "take", take)
    ctx = context(tmp_path, web, urls)
    fetch(ctx)
    assert len(started) >= 4  # and one more, where an image was being decoded alone
    rows = pq.read_table(ctx.out / "rows.parquet")
    assert rows["reason"].null_count == 200


def test_processes_that_are_killed_again_and_again_are_one_line(
    tmp_path: Path, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.pool.start", os._exit)
    ctx = context(tmp_path, web, ["http://h.test/1.jpg"])
    with pytest.raises(WitError, match="again and again, perhaps for want"):
        fetch(ctx)


def test_nothing_to_fetch(tmp_path: Path, web: Any) -> None:
    ctx = context(tmp_path, web, ["http://h.test/unwanted.jpg"])
    fetch(ctx)
    assert pq.read_table(ctx.out / "rows.parquet").num_rows == 0
    assert list((ctx.out / FOLDER).iterdir()) == []
    assert pq.read_table(ctx.corpus / PROVENANCE).num_rows == 0


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


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    future: Future[int] = Future()
    future.set_exception(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(WitError, match="free disk space"):
        _result(future)


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
