"""Who waits for whom, said by real processes of which one is stopped."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from train.dist import World
from train.watch import STUCK, Watch

from . import ranks


def test_a_stopped_rank_is_named_by_those_that_wait_for_it(make_config, tmp_path: Path) -> None:
    config = make_config(steps=100_000, loop__save_every=100_000, guard={"stuck_seconds": 1.0})
    processes = ranks.start_all(config, 2, tmp_path / "log")
    first, second = processes
    log = tmp_path / "log.0"
    name = f"process {second.pid} on {os.uname().nodename}"
    says = re.compile(
        r"stuck: rank 0 is in the step \d+ since .*; it waits for: rank 1: no sign of life since"
        rf" .* \({re.escape(name)}, which (is in the step|waits for its own data) \d+\)"
    )
    try:
        metrics = config.run / "metrics.jsonl"
        ranks.until(
            lambda: metrics.is_file() and len(metrics.read_text().splitlines()) > 3, first, log
        )
        os.kill(second.pid, signal.SIGSTOP)
        ranks.until(lambda: says.search(log.read_text()) is not None, first, log)
    finally:
        for process in processes:
            process.kill()
            process.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_it_gives_up_when_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []

    def end(code: int) -> None:
        ended.append(code)
        raise SystemExit  # of the thread

    monkeypatch.setattr(os, "_exit", end)
    said: list[str] = []
    watch = Watch(tmp_path, World(0, 1, torch.device("cpu")), 0.05, 0.1, said.append)
    with watch.watching():
        watch.now("step", 3)
        deadline = time.monotonic() + 60
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)
    assert ended == [STUCK]
    assert "rank 0 gives up after" in said[-1]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Watch, Watch]:
    cpu = torch.device("cpu")
    first, second = (Watch(tmp_path, World(rank, 2, cpu), 1e6) for rank in range(2))
    for watch in (first, second):
        watch._folder.mkdir(exist_ok=True)
    return first, second


def test_a_stuck_loader_is_told_from_those_that_wait_for_it(two: tuple[Watch, Watch]) -> None:
    waits, loads = two
    waits.now("step", 7)
    loads.now("data", 7)
    for watch in two:
        watch._note()
    for watch in two:
        watch._look()
    assert waits.report(60) == (
        "stuck: rank 0 is in the step 7 since 1 min 00 s; it waits for: rank 1 waits for its own"
        " data 7"
    )
    assert "rank 1 waits for its own data 7 since" in loads.report(60)


def test_alone_it_says_what_it_does(tmp_path: Path) -> None:
    said: list[str] = []
    watch = Watch(tmp_path, World(0, 1, torch.device("cpu")), 0.05, say=said.append)
    with watch.watching():
        watch.now("data", 3)
        deadline = time.monotonic() + 60
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said[0].startswith("stuck: rank 0 waits for its own data 3 since")
    assert list(tmp_path.iterdir()) == []
