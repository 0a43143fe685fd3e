"""The download shared out by rank, in processes of their own that work at the same time."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from pipeline import leases
from pipeline.build import build
from pipeline.config import ShardsConfig
from pipeline.fetch import limits
from pipeline.run_state import Part
from wit import manifest
from wit.config import load
from wit.errors import ConfigError, CorpusError, WitError


def ranked(config: ShardsConfig, rank: int, world: int = 2) -> ShardsConfig:
    engine = config.engine.model_copy(update={"rank": rank, "world": world})
    return config.model_copy(update={"engine": engine})


def test_two_ranks_and_a_join_give_the_bytes_of_one_process(
    sample: ShardsConfig, corpus: Path, tmp_path: Path, capfd: Any
) -> None:
    config = sample.model_copy(update={"corpus": tmp_path / "corpus"})
    with pytest.raises(CorpusError, match=r"10_ingest is not built yet: run .* --until 50_balance"):
        build(ranked(config, 0))
    build(config.model_copy(update={"until": "50_balance"}))
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=build, args=(ranked(config, rank),)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    (fetched,) = (tmp_path / "corpus" / "stages").glob("60_fetch.*.tmp")
    shards = {path.name for path in (fetched / "img2dataset").glob("*.tar")}
    assert len(shards) > 1
    before = {path: path.stat().st_mtime_ns for path in fetched.glob("img2dataset/*.tar")}
    build(config)
    joined = tmp_path / "corpus" / "stages" / "60_fetch" / "img2dataset"
    assert {path.name: path.stat().st_mtime_ns for path in joined.glob("*.tar")} == {
        path.name: time for path, time in before.items()
    }
    assert manifest.read(tmp_path / "corpus").files == manifest.read(corpus).files
    capfd.readouterr()
    build(ranked(config, 1))
    assert "everything is fetched" in capfd.readouterr().err


def test_limits_per_host_are_shared_out() -> None:
    config = ShardsConfig.model_validate({"fetch": {"host_connections": 8, "host_rate": 100}})
    assert (limits(config).host_connections, limits(config).host_rate) == (8, 100)
    assert (limits(config, 4).host_connections, limits(config, 4).host_rate) == (2, 25)
    assert limits(config, 50).host_connections == 1


def lease(since: float | None = None, **tries: int) -> leases._Lease:
    return leases._Lease(Part(3, 0, 0, 100), Path("mark"), since, **tries)


def test_a_task_is_slow_by_the_time_since_it_began() -> None:
    held = {"waits": lease(None), "began": lease(400.0), "stuck": lease(100.0)}
    assert leases.stragglers(held, [90.0] * 4, 461.0) == ["stuck"]  # four times the median
    assert leases.stragglers(held, [90.0] * 4, 460.0) == []
    assert leases.stragglers(held, [0.5] * 4, 461.0) == ["began", "stuck"]  # a minute at least
    assert leases.stragglers(held, [90.0] * 3, 9999.0) == []  # too few to tell
    held["stuck"] = held["stuck"].again(Path(), lost=False)
    assert held["stuck"].since is None
    held["stuck"].since = 100.0
    assert leases.stragglers(held, [90.0] * 4, 820.0) == ["began"]
    assert leases.stragglers(held, [90.0] * 4, 821.0) == ["began", "stuck"]


def test_only_tasks_that_died_count_as_lost() -> None:
    tried = lease(0.0, lost=leases.LEASES - 2)
    for _ in range(9):
        tried = tried.again(Path(), lost=False)
    tried = tried.again(Path(), lost=True)
    with pytest.raises(WitError, match="shard 000003 was lost 4 times: see `ray status`"):
        tried.again(Path(), lost=True)


def test_no_more_tasks_than_processors() -> None:
    cases = {(0, 4, 9): 4, (64, 4, 9): 4, (2, 4, 9): 2, (0, 4, 3): 3, (0, 0, 9): 1}
    assert {given: leases.at_once(*given) for given in cases} == cases


def test_a_rank_is_below_the_number_of_ranks() -> None:
    with pytest.raises(ConfigError, match="rank = 2 must be below world = 2"):
        load(ShardsConfig, ["--engine.rank", "2", "--engine.world", "2"], prog="wit shards")
