"""What a downloading process is told, what it answers, and how it starts and ends.

The parent knows only this module: aiohttp and what it imports are loaded in processes of their
own, and only when there is something to do.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.store import Storer

SHARD_DIGITS = 6
DECODERS = 2  # threads of a process; one decodes while another waits for the interpreter
# Shared with the parent: shard and index of the image that each thread, and the loop, decodes.
DECODING, NONE = 2 * (DECODERS + 1), -1
PRELOAD = ["pipeline.worker", "pipeline.finish", "pipeline.parts", "pipeline.udfs"]
LOCAL = "local:"  # scheme of our own for `local:NUMBER:PATH`; never taken from the input


@dataclass(frozen=True)
class FetchLimits:
    """What one downloading process may do; see `pipeline.config.FetchConfig`.

    `resolve` is a tuple of (host, "address:port") so that the whole is hashable.
    """

    timeout: float = 10.0
    deadline: float = 30.0
    max_bytes: int = 32 * 2**20
    min_rate: float = 0.0
    retries: int = 1
    backoff: float = 1.0
    user_agent: str = "wit"
    connections: int = 64
    host_connections: int = 8
    host_rate: float = 0.0
    robots: bool = False
    userinfo: str = "drop"
    any_port: bool = False
    allow_loopback: bool = False
    resolve: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Task:
    """What is the same for every URL of a download.

    Attributes:
        limits: of one process.
        roots: folders of local images, by the number in `local:NUMBER:PATH`.
        storer: what becomes of a downloaded body.
        attempt: folder of this run; the processes end when it is gone.
    """

    limits: FetchLimits
    roots: tuple[Path, ...]
    storer: Storer
    attempt: Path


@dataclass(frozen=True, slots=True)
class Order:
    """One URL to fetch; `last` when it is tried for the last time, at the end of the run."""

    shard: int
    index: int
    url: str
    last: bool = False


@dataclass(slots=True)
class Outcome:
    """What became of one URL: img2dataset's columns, ours, and where it came from.

    Attributes:
        final: whether it stands; if not, the URL is tried once more at the end of the run.
        time: when the answer was complete, in seconds since 1970.
    """

    shard: int
    index: int
    status: str = "failed_to_download"
    reason: str | None = None
    width: int | None = None
    height: int | None = None
    original_width: int | None = None
    original_height: int | None = None
    format: str | None = None
    sha256: str | None = None
    phash: int | None = None
    final_url: str | None = None
    http_status: int | None = None
    content_type: str | None = None
    last_modified: str | None = None
    etag: str | None = None
    x_robots_tag: str | None = None
    bytes: int | None = None
    time: float = 0.0
    final: bool = True

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Answer(NamedTuple):
    """What a downloading process sends for an order: the record for its ledger, and what the
    parent needs to know of it; `position` is the order's index, `size` the bytes of the body."""

    shard: int
    position: int
    reason: str | None
    final: bool
    size: int
    record: bytes


def processes() -> Any:
    """How working processes are made: forked from one that has imported what they need, which ends
    with us; where that can't be had, each from nothing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with _apart():
        forkserver.ensure_running()
    return context


@contextmanager
def _apart() -> Iterator[None]:
    """What is started here looks for no module in the working folder, whose files may be named as
    ours are, and does not hear Ctrl-C, not even before it can say so itself."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    deaf = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if deaf else None
    try:
        yield
    finally:
        if deaf:
            signal.signal(signal.SIGINT, handler)
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def start(task: Task, pipe: Connection, decoding: Any) -> None:
    """What a downloading process runs; all that it imports is imported there."""
    prepare(task.attempt)
    from pipeline.worker import work

    work(task, pipe, decoding)


def ready_to_finish() -> None:
    """Import what `finish` needs, while there is nothing to finish yet."""
    import pipeline.finish  # noqa: F401


def finish(path: Path, urls: list[str], encoding: str, *folders: Path) -> int:
    """`pipeline.finish.finish`, in the process that writes finished shards."""
    from pipeline.finish import finish as run

    return run(path, urls, encoding, *folders)


def prepare(attempt: Path) -> None:
    """Set up a process of the download: it ends when its parent is gone or has given up.

    An orphan that kept writing could meet the next run in the same folder; it writes into the
    attempt's own folder, and it stops as soon as that is removed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_watch, args=(attempt,), daemon=True).start()


def _watch(attempt: Path) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "prepare is for working processes"
    while parent.is_alive() and attempt.exists():
        time.sleep(0.25)
    os._exit(1)
