"""Real processes of a training, forked from one that has imported torch: that takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from train.config import TrainConfig
from train.loop import train

# What a training imports in its first steps too: the optimiser dynamo, pyarrow pandas.
PRELOAD = ["train.loop", "torch._dynamo", "torch.profiler", "pandas", "pyarrow.pandas_compat"]


def server() -> ForkServerContext:
    """One process for all tests of a session, from which others are forked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


def start(config: TrainConfig, log: Path, **env: str) -> BaseProcess:
    """Train in a process of its own, whose output goes to a file."""
    one: BaseProcess = server().Process(target=_train, args=(config, log, env))
    one.start()
    return one


def start_all(config: TrainConfig, size: int, log: Path) -> list[BaseProcess]:
    """Train in `size` processes as torchrun starts them; `log.RANK` holds what one prints."""
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        start(config, Path(f"{log}.{rank}"), RANK=str(rank), LOCAL_RANK=str(rank), **common)
        for rank in range(size)
    ]


def train_in(size: int, config: TrainConfig) -> None:
    """Train in so many processes, to the end."""
    log = config.run.with_suffix(".log")
    processes = start_all(config, size, log)
    for one in processes:
        one.join(120)
    said = [Path(f"{log}.{rank}").read_text() for rank in range(size)]
    assert [one.exitcode for one in processes] == [0] * size, said


def until(what: Callable[[], bool], one: BaseProcess, log: Path) -> None:
    """Wait for something while a process runs."""
    deadline = time.monotonic() + 200
    while not what():
        assert one.is_alive(), f"it ended: {log.read_text()}"
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def _train(config: TrainConfig, log: Path, env: dict[str, str]) -> None:
    os.environ |= env
    with log.open("wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    sys.exit(train(config))
