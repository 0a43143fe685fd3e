"""A download while it runs: which URLs are still to do, its ledgers, its shards, its progress."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import optout
from pipeline.context import Context
from pipeline.ledger import SUFFIX, Ledger, record
from pipeline.task import (
    SHARD_DIGITS,
    Answer,
    Order,
    Outcome,
    Task,
    finish,
    prepare,
    processes,
    ready_to_finish,
)
from wit.errors import WitError
from wit.schema import Reason

LEDGERS, TIMES, FOLDER = ".ledgers", ".times", "img2dataset"
OPTED_OUT = str(Reason.OPTED_OUT)
OPEN_LEDGERS = 64
SHOWN = 3  # reasons on the progress line


@dataclass(frozen=True)
class Part:
    """One shard's share of the list: a slice of one row group."""

    shard: int
    group: int
    first: int
    urls: int

    @property
    def name(self) -> str:
        return f"{self.shard:0{SHARD_DIGITS}d}"


class Shards:
    """The URLs of shards, read from the list when they are asked for."""

    def __init__(self, urls: pq.ParquetFile, parts: list[Part]) -> None:
        self._urls, self._parts = urls, {part.shard: part for part in parts}
        self._group, self._listed = -1, pa.table({})

    def __iter__(self) -> Iterator[int]:
        return iter(self._parts)

    def __getitem__(self, shard: int) -> list[str]:
        part = self._parts[shard]
        if part.group != self._group:
            self._group = part.group
            self._listed = self._urls.read_row_group(part.group, ["url"])
        urls: list[str] = self._listed["url"].slice(part.first, part.urls).to_pylist()
        return urls


@dataclass
class _Shard:
    """A shard at which work is going on.

    Attributes:
        ledger: what is known of its URLs.
        missing: how many of them have no outcome yet.
        late: those whose outcome is not final.
    """

    ledger: Ledger
    missing: int
    late: set[int]


class Run:
    """Takes outcomes, keeps them, and finishes shards in a process beside.

    A shard is in memory while its URLs are asked for; what is to be tried again stands in its
    ledger until the end, so a long list needs no more memory than a short one.

    Args:
        ctx: of the stage.
        task: of the downloading processes.
        total: URLs of the whole list.
        done: URLs of shards that were finished by an earlier run.
        shards: the others.
    """

    def __init__(self, ctx: Context, task: Task, total: int, done: int, shards: Shards) -> None:
        self._ctx, self._task, self._total, self._shards = ctx, task, total, shards
        self._optouts = optout.read(ctx.corpus)
        self._encoding = task.storer.encoding
        self._open: dict[int, _Shard] = {}
        self._used: dict[int, Ledger] = {}  # open files, the latest last
        self._parked: dict[int, None] = {}  # in order
        self._finishing: set[Future[int]] = set()
        self._counts: Counter[str] = Counter(earlier=done)
        self._bytes, self._started = 0, time.monotonic()
        self._finisher = ProcessPoolExecutor(
            1,
            mp_context=processes(),
            initializer=prepare,
            initargs=(task.attempt,),
        )
        self._finisher.submit(ready_to_finish)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        for shard in self._open.values():
            shard.ledger.close()
        self._finisher.shutdown(wait=True, cancel_futures=True)

    def _ledger(self, number: int) -> Path:
        return self._ctx.out / LEDGERS / f"{number:0{SHARD_DIGITS}d}{SUFFIX}"

    def _begin(self, number: int, urls: list[str]) -> tuple[_Shard, list[int]]:
        """Take a shard up where its ledger ends; also says which of its URLs are missing."""
        ledger = Ledger(self._ledger(number))
        ledger.close()  # until there is something to write
        late = {index for index, final in ledger.known.items() if not final}
        missing = [index for index in range(len(urls)) if index not in ledger.known]
        ledger.known.clear()
        shard = self._open[number] = _Shard(ledger, len(missing), late)
        return shard, missing

    def orders(self) -> Iterator[Order]:
        """The URLs that no earlier run has an outcome of, shard after shard."""
        for number in self._shards:
            urls = self._shards[number]
            _, missing = self._begin(number, urls)
            self._counts["earlier"] += len(urls) - len(missing)
            self._end_if_through(number)
            for index in missing:
                if self._optouts.forbid(urls[index]):
                    gone = Outcome(number, index, reason=OPTED_OUT, time=time.time())
                    self.take([Answer(number, index, OPTED_OUT, True, 0, record(gone, None))])
                else:
                    yield Order(number, index, urls[index])

    def late(self) -> Iterator[Order]:
        """The URLs that failed in a way that may have passed by now."""
        for number in self._parked:
            urls = self._shards[number]
            shard, _ = self._begin(number, urls)
            for index in sorted(shard.late):
                yield Order(number, index, urls[index], last=True)

    def take(self, answers: list[Answer]) -> None:
        """Keep what became of some URLs; it is in their files when this returns."""
        for answer in answers:
            self._take(answer)
        for number in {answer.shard for answer in answers} & self._open.keys():
            self._open[number].ledger.flush()

    def _take(self, answer: Answer) -> None:
        shard = self._open[answer.shard]
        self._used.pop(answer.shard, None)
        self._used[answer.shard] = shard.ledger
        if len(self._used) > OPEN_LEDGERS:
            self._used.pop(next(iter(self._used))).close()
        again = answer.position in shard.late
        shard.ledger.append(answer.record)
        if answer.final:
            shard.late.discard(answer.position)
        else:
            shard.late.add(answer.position)
        if not again:
            shard.missing -= 1
            self._counts[answer.reason or "ok"] += 1
        self._bytes += answer.size
        self._end_if_through(answer.shard)

    def _end_if_through(self, number: int) -> None:
        """Finish a shard that has all its outcomes; put it aside if some are to be tried again."""
        shard = self._open[number]
        if shard.missing or (shard.late and number in self._parked):
            return
        shard.ledger.close()
        self._used.pop(number, None)
        del self._open[number]
        if shard.late:
            self._parked[number] = None
            return
        folders = (self._task.attempt, self._ctx.out / FOLDER, self._ctx.out / TIMES)
        self._finishing.add(
            self._finisher.submit(
                finish, self._ledger(number), self._shards[number], self._encoding, *folders
            )
        )

    def tick(self) -> None:
        """Show the progress; stop when a shard could not be finished, or others took over."""
        if not self._task.attempt.exists():
            raise WitError("download: another run took over: wait for that one")
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
