"""Who waits for whom, said by real processes of which one is stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from train.dist import World
from train.watch import STUCK, Watch
from wit.config import as_json

CODE = (
    "import json, sys\n"
    "from train.config import TrainConfig; from train.loop import train\n"
    "sys.exit(train(TrainConfig(**json.load(open(sys.argv[1])))))"
)


def until(what, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while not what():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def test_a_stopped_rank_is_named_by_those_that_wait_for_it(make_config, tmp_path: Path) -> None:
    config = make_config(steps=100_000, loop__save_every=100_000, guard={"stuck_seconds": 1.0})
    (tmp_path / "config.json").write_text(json.dumps(as_json(config)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes, logs = [], [tmp_path / f"rank{rank}.log" for rank in range(2)]
    for rank, log in enumerate(logs):
        env = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        with log.open("wb") as out:
            command = [sys.executable, "-c", CODE, str(tmp_path / "config.json")]
            processes.append(
                subprocess.Popen(command, env=os.environ | env, stdout=out, stderr=out)
            )
    first, second = processes
    name = f"process {second.pid} on {os.uname().nodename}"
    says = re.compile(
        r"stuck: rank 0 is in the step \d+ since .*; it waits for: rank 1: no sign of life since"
        rf" .* \({re.escape(name)}, which (is in the step|waits for its own data) \d+\)"
    )
    try:
        metrics = config.run / "metrics.jsonl"
        until(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) > 3, first)
        second.send_signal(signal.SIGSTOP)
        until(lambda: says.search(logs[0].read_text()), first)
    finally:
        for process in processes:
            process.kill()
            process.wait()


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
