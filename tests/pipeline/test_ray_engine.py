"""`--engine ray` on a cluster of two nodes on this machine, one of which dies in mid-run."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import EngineConfig, ShardsConfig
from pipeline.fetch import fetch
from pipeline.run import with_engine
from pipeline.run_state import LEDGERS
from wit.errors import InputError, WitError

from .test_fetch import context, files, jpeg

ray = pytest.importorskip("ray", reason="ray is not installed: pip install -e '.[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

ROWS, PART = 6000, 500


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with one CPU each; this process is connected to the first."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    try:
        made.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        ray.init(address=made.address, log_to_driver=False)
        made.wait_for_nodes()
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    """Rows whose captions take their time, since most need the long road of cleaning."""
    texts = [f"a réd dog and cat number {i % 900} on the beach in the summer" for i in range(ROWS)]
    urls = [f"http://h{i % 7}.example/{i * 7 % 11_000}.jpg" for i in range(ROWS)]
    pq.write_table(pa.table({"url": urls, "text": texts}), tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def settings(metadata: Path, corpus: str, **engine: Any) -> dict[str, Any]:
    return {
        "input": [metadata],
        "corpus": metadata.parent / corpus,
        "queries": ["dog", "cat", "red dog", "beach"],
        "balance": {"cap": 300},
        "engine": {"partition_rows": PART, "threads": 1, **engine},
    }


def digests(corpus: Path) -> dict[str, str]:
    return {
        str(path.relative_to(corpus)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((corpus / "stages").rglob("*"))
        if path.is_file() and path.name != "inputs.json"
    }


def test_a_node_dies_and_the_bytes_are_the_same(
    run_until: Any, metadata: Path, cluster: Any
) -> None:
    for name in ("near", "far"):
        (metadata.parent / name).mkdir()
    run_until("50_balance", **settings(metadata, "near"))
    second = next(node for node in cluster.list_all_nodes() if node is not cluster.head_node)
    cleaning = metadata.parent / "far" / "stages"
    nodes_at_work: list[int] = []

    def kill() -> None:
        while not list(cleaning.glob("15_clean.*.tmp/0*.parquet")):
            time.sleep(0.02)
        nodes_at_work.append(len(list(cleaning.glob("15_clean.*.tmp/0*.parquet"))))
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    run_until("50_balance", **settings(metadata, "far", name="ray"))
    killer.join()
    assert nodes_at_work[0] < ROWS // PART  # it died before the stage was done
    assert not second.any_processes_alive()
    found = digests(metadata.parent / "far")
    assert len([name for name in found if "/15_clean/0" in name]) == ROWS // PART
    assert found == digests(metadata.parent / "near")


def test_a_worker_dies_over_the_download_and_the_bytes_are_the_same(
    tmp_path: Path, web: Any, cluster: Any
) -> None:
    urls = [f"http://h{i % 7}.test/{i}.jpg" for i in range(150)]
    for i in range(150):
        web.body(f"/{i}.jpg", jpeg(i, 24))
        slow(web, f"/{i}.jpg")
    near = context(tmp_path, web, urls, "near")
    fetch(near)
    far = context(tmp_path, web, urls, "far")
    engine = EngineConfig(name="ray", threads=1)
    far = replace(far, config=far.config.model_copy(update={"engine": engine}))
    killed: list[int] = []

    def kill() -> None:
        while not any(path.stat().st_size for path in far.out.glob(f"{LEDGERS}/*.ledger")):
            time.sleep(0.01)
        killed.extend(workers())
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    fetch(far)
    killer.join()
    assert killed
    assert files(far.out) == files(near.out)
    del web.hits["/robots.txt"]
    assert max(web.hits.values()) <= 3  # once here, once there, and once more if it was under way


def slow(web: Any, path: str) -> None:
    answer = web.answers[path]
    web.answers[path] = lambda handler: (time.sleep(0.05), answer(handler))


def workers() -> list[int]:
    """The processes of the cluster that fetch shards; Ray names a process after its task."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"ray::fetch_shard" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def test_what_a_part_says_is_heard(run_until: Any, tmp_path: Path, cluster: Any) -> None:
    path = tmp_path / "torn.parquet"
    table = pa.table(
        {"url": [f"http://h.example/{i}" for i in range(4000)], "text": ["dog"] * 4000}
    )
    pq.write_table(table, path, row_group_size=1000, compression="gzip")
    body = bytearray(path.read_bytes())
    body[len(body) // 2 : len(body) // 2 + 500] = b"\xff" * 500
    path.write_bytes(body)
    (tmp_path / "corpus").mkdir()
    with pytest.raises(InputError, match=r"torn\.parquet: not readable as parquet"):
        run_until("10_ingest", **settings(path, "corpus", name="ray"))


def test_near_duplicate_captions_are_the_same_bytes(tmp_path: Path, cluster: Any) -> None:
    from .test_near_texts import Stage40, captions, rows_of

    stages = [Stage40(tmp_path / name, rows_of(captions(150))) for name in ("local", "ray")]
    stages[1].engine |= {"name": "ray"}
    first, second = (stage.run(permutations=16) for stage in stages)
    assert first == second
    assert files(stages[0].out) == files(stages[1].out)
    assert list(stages[1].out.glob(".pairs/*.parquet"))


def test_no_cluster_is_one_line(tmp_path: Path) -> None:
    from pipeline import ray_engine

    ray.shutdown()
    with pytest.raises(WitError, match=r"no Ray cluster at 127\.0\.0\.1:1 .*ray start --head"):
        ray_engine.connected(EngineConfig(name="ray", address="127.0.0.1:1"))


def test_the_short_form_on_the_command_line() -> None:
    from wit.config import load

    for argv in (["--engine", "ray"], ["--engine=ray"]):
        config = load(ShardsConfig, with_engine(argv), prog="wit shards")
        assert config.engine.name == "ray"
    assert with_engine(["--engine.threads", "2"]) == ["--engine.threads", "2"]
    ranked = load(ShardsConfig, with_engine(["--rank", "1", "--world=3"]), prog="wit shards")
    assert (ranked.engine.rank, ranked.engine.world) == (1, 3)
