"""What a downloading process is told, and how it starts and ends.

The parent knows only this module: img2dataset and all that it imports are loaded in the
downloading processes alone (`pipeline.worker`), and only when there is something to fetch.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.download import FetchLimits
from pipeline.store import Storer

SHARD_DIGITS = 6
LOCAL = "local:"  # scheme of our own for `local:NUMBER:PATH`; never taken from the input


@dataclass(frozen=True)
class Task:
    """What is the same for every shard of a download.

    Attributes:
        limits: of one download.
        roots: folders of local images, by the number in `local:NUMBER:PATH`.
        storer: what becomes of a downloaded body.
        threads: connections of one process.
        shard_size: URLs of a full shard.
        attempt: folder of this run's unfinished work.
        finished: folder that finished shards are moved into.
    """

    limits: FetchLimits
    roots: tuple[Path, ...]
    storer: Storer
    threads: int
    shard_size: int
    attempt: Path
    finished: Path


def prepare(parent: int, attempt: Path) -> None:
    """Set up a downloading process: it ends when its parent is gone or has given up.

    An orphan that kept writing could meet the next run in the same folder; it writes into the
    attempt's own folder, and it stops as soon as that is removed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    # webdataset imports torch where it is installed: a second and 200 MB for nothing
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    threading.Thread(target=_watch, args=(parent, attempt), daemon=True).start()


def _watch(parent: int, attempt: Path) -> None:
    while os.getppid() == parent and attempt.exists():
        time.sleep(0.25)
    os._exit(1)


def run_shard(task: Task, shard: int, urls: Path) -> int:
    """Download one shard; returns its number.

    Args:
        task: what all shards share.
        shard: its number.
        urls: Arrow file with the column `url`; it is removed at the end.
    """
    return _downloader(task)((shard, str(urls)))


@functools.lru_cache(maxsize=1)
def _downloader(task: Task) -> Callable[[tuple[int, str]], int]:
    from pipeline.worker import CheckedDownloader

    return CheckedDownloader(task)
