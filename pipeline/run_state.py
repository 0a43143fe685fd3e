"""A download while it runs: which URLs are still to do, its ledgers, its shards, its progress."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

from pipeline import optout
from pipeline.context import Context
from pipeline.ledger import SUFFIX, Ledger, record
from pipeline.task import SHARD_DIGITS, Answer, Order, Outcome, Task, finish, prepare
from wit.errors import WitError
from wit.schema import Reason

LEDGERS, TIMES, FOLDER = ".ledgers", ".times", "img2dataset"
OPTED_OUT = str(Reason.OPTED_OUT)
SHOWN = 3  # reasons on the progress line


@dataclass
class _Shard:
    """A shard that is not finished."""

    urls: list[str]
    ledger: Ledger
    late: set[int] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        return len(self.ledger.known) == len(self.urls) and not self.late


class Run:
    """Takes outcomes, keeps them, and finishes shards in a process beside.

    Args:
        ctx: of the stage.
        task: of the downloading processes.
        done: shards that were finished by an earlier run.
        total: URLs of the whole list.
    """

    def __init__(self, ctx: Context, task: Task, done: set[int], total: int) -> None:
        self._ctx, self._task, self._total = ctx, task, total
        self._optouts = optout.read(ctx.corpus)
        self._encoding = task.storer.encoding
        self._open: dict[int, _Shard] = {}
        self._finishing: set[Future[int]] = set()
        self._counts: Counter[str] = Counter()
        self._bytes, self._started = 0, time.monotonic()
        self._before = done
        self._finisher = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=prepare,
            initargs=(os.getpid(), task.attempt),
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        for shard in self._open.values():
            shard.ledger.close()
        self._finisher.shutdown(wait=True, cancel_futures=True)

    def orders(self, shards: Iterator[tuple[int, list[str]]]) -> Iterator[Order]:
        """The URLs that no earlier run has an outcome of, shard after shard."""
        for number, urls in shards:
            path = self._ctx.out / LEDGERS / f"{number:0{SHARD_DIGITS}d}{SUFFIX}"
            shard = self._open[number] = _Shard(urls, Ledger(path))
            known = shard.ledger.known
            shard.late = {index for index, final in known.items() if not final}
            self._counts["earlier"] += len(known)
            todo = [index for index in range(len(urls)) if index not in known]
            self._finish_if_complete(number)
            for index in todo:
                if self._optouts.forbid(urls[index]):
                    gone = Outcome(number, index, reason=OPTED_OUT, time=time.time())
                    self.take(Answer(number, index, OPTED_OUT, True, 0, record(gone, None)))
                else:
                    yield Order(number, index, urls[index])

    def late(self) -> Iterator[Order]:
        """The URLs that failed in a way that may have passed by now."""
        for number, shard in list(self._open.items()):
            for index in sorted(shard.late):
                yield Order(number, index, shard.urls[index], last=True)

    def take(self, answer: Answer) -> None:
        """Keep what became of one URL."""
        shard = self._open[answer.shard]
        again = answer.position in shard.late
        shard.ledger.append(answer.position, answer.final, answer.record)
        if answer.final:
            shard.late.discard(answer.position)
        else:
            shard.late.add(answer.position)
        if not again:
            self._counts[answer.reason or "ok"] += 1
        self._bytes += answer.size
        self._finish_if_complete(answer.shard)

    def _finish_if_complete(self, number: int) -> None:
        shard = self._open[number]
        if not shard.complete:
            return
        shard.ledger.close()
        del self._open[number]
        path = self._ctx.out / LEDGERS / f"{number:0{SHARD_DIGITS}d}{SUFFIX}"
        folders = (self._task.attempt, self._ctx.out / FOLDER, self._ctx.out / TIMES)
        self._finishing.add(
            self._finisher.submit(finish, path, shard.urls, self._encoding, *folders)
        )

    def tick(self) -> None:
        """Show the progress; stop when a shard could not be finished."""
        for future in [future for future in self._finishing if future.done()]:
            self._finishing.remove(future)
            _result(future)
        done = self._counts.total()
        fresh = done - self._counts["earlier"]
        if not fresh:
            return
        ok, rate = self._counts["ok"], self._bytes / (time.monotonic() - self._started)
        failures = [
            f"{reason} {count / fresh:.0%}"
            for reason, count in self._counts.most_common()
            if reason not in ("ok", "earlier")
        ]
        said = ", ".join([f"{ok / fresh:.0%} images", *failures[:SHOWN], f"{rate / 1e6:.1f} MB/s"])
        self._ctx.progress(done, self._total, f"URLs ({said})")

    def finish(self) -> None:
        """Wait for the shards that are being finished.

        Raises:
            AssertionError: a URL has no outcome; a bug.
        """
        assert not self._open, f"shards {sorted(self._open)} are not complete"
        for future in self._finishing:
            _result(future)


def _result(future: Future[int]) -> int:
    try:
        return future.result()
    except BrokenProcessPool:
        raise WitError(
            "download: the process that finishes shards was killed, perhaps for want of memory:"
            " run the same command again; what was fetched is kept"
        ) from None
    except OSError as error:
        raise WitError(
            f"download: {error.strerror or error}: free disk space or mend the folder, then run"
            " the same command again; what was fetched is kept"
        ) from None
