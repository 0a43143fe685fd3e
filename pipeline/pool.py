"""The parent's side of a download: who fetches what, what came of it, and when to stop.

Every host belongs to one process, so that its connections, its limits and its robots.txt are
shared by all of its URLs. Outcomes go into the ledgers as they come; what failed in a way that
may pass is tried once more when everything else is done.

An image can crash its decoder, or make it take all memory. When a process dies, those images that
it was decoding are tried again one by one in a process of their own, and the one in which that
dies too is given up; everything else goes on in a fresh process.
"""

from __future__ import annotations

import pickle
import selectors
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from pipeline.ledger import record
from pipeline.task import DECODING, LOCAL, NONE, Answer, Order, Outcome, Task, processes, start
from wit.errors import WitError
from wit.schema import Reason

TICK_S = 0.5
WINDOW = 16  # orders at a process, per connection: enough that slow hosts don't hold up others
RECENT = 500  # outcomes that the circuit breaker looks at
RESTARTS = 3  # in one run, of processes that died while they decoded nothing

ADVICE = {
    Reason.DNS: "names don't resolve: check the resolver of this machine (/etc/resolv.conf), or"
    " lower --fetch.connections if it can't keep up",
    Reason.TIMEOUT: "servers don't answer in time: check the network, lower --fetch.connections,"
    " or raise --fetch.timeout",
    Reason.CONNECTION: "connections fail: check the network, its firewall and its limit on open"
    " connections, or lower --fetch.connections",
    Reason.DECODER_CRASH: "the processes die while they decode images: lower --image.max_pixels or"
    " --fetch.processes if memory is short, or install another version of pillow or simplejpeg",
}


@dataclass
class _Process:
    """One downloading process and what it has been told to do."""

    process: Any
    pipe: Connection
    decoding: Any  # shard and index of the images that it decodes; see `pipeline.task.DECODING`
    backlog: deque[Order] = field(default_factory=deque)
    flying: dict[tuple[int, int], Order] = field(default_factory=dict)

    def end(self) -> None:
        self.pipe.close()
        self.process.terminate()

    def suspects(self) -> list[Order]:
        """Take out the orders whose images it was decoding when it died."""
        places = list(zip(self.decoding[::2], self.decoding[1::2], strict=True))
        return [self.flying.pop(place) for place in places if place in self.flying]


class Breaker:
    """Stops a download that fails for one reason of the network, before the list is burnt.

    Args:
        share: of the last `RECENT` URLs; 1 never stops.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._recent: deque[str | None] = deque(maxlen=RECENT)
        self._counts: Counter[str | None] = Counter()

    def add(self, reason: str | None) -> None:
        """Take one outcome into account.

        Raises:
            WitError: too many of the last ones failed for one reason of `ADVICE`.
        """
        if len(self._recent) == RECENT:
            self._counts[self._recent[0]] -= 1
        self._recent.append(reason)
        self._counts[reason] += 1
        for suspect, advice in ADVICE.items():
            failed = self._counts[str(suspect)]
            if len(self._recent) == RECENT and failed > self._share * RECENT:
                raise WitError(
                    f"download: {failed} of the last {RECENT} URLs failed with {suspect}: {advice};"
                    " then run the same command again: what was fetched is kept (or let it go on"
                    " with --fetch.max_failures 1)"
                )


class Pool:
    """Downloading processes.

    Args:
        task: what they all are told.
        size: how many.
        breaker: sees every first outcome.
        take: is given the answers, as they come.
    """

    def __init__(
        self,
        task: Task,
        size: int,
        breaker: Breaker,
        take: Callable[[list[Answer]], None],
    ) -> None:
        self._task, self._breaker, self._take = task, breaker, take
        self._context = processes()
        self._ready = selectors.DefaultSelector()
        self._processes = [self._start() for _ in range(size)]
        self._window = WINDOW * task.limits.connections
        self._restarts = 0
        self._suspects: deque[Order] = deque()
        self._alone: _Process | None = None  # decodes suspects, one at a time

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        left = [*self._processes, *([self._alone] if self._alone else [])]
        for worker in left:
            worker.end()
        for worker in left:
            worker.process.join()
        self._ready.close()

    def _start(self) -> _Process:
        ours, theirs = self._context.Pipe()
        decoding = self._context.RawArray("q", [NONE] * DECODING)
        process = self._context.Process(target=start, args=(self._task, theirs, decoding))
        process.start()
        theirs.close()
        started = _Process(process, ours, decoding)
        self._ready.register(ours, selectors.EVENT_READ, started)
        return started

    def run(self, orders: Iterator[Order], tick: Callable[[], None]) -> None:
        """Fetch everything; `tick` is called a few times a second.

        Raises:
            WitError: the breaker, or processes that are killed again and again.
        """
        more, next_tick = True, 0.0
        while True:
            more = more and self._fill(orders)
            for worker in self._processes:
                self._feed(worker)
            self._feed_alone()
            if not self._alone and not any(worker.flying for worker in self._processes):
                return
            for key, _ in self._ready.select(TICK_S):
                self._receive(key.data)
            if time.monotonic() > next_tick:
                next_tick = time.monotonic() + TICK_S
                tick()

    def _fill(self, orders: Iterator[Order]) -> bool:
        """Hand out orders until every process has enough; False when there are no more."""
        most = self._window * len(self._processes)
        while sum(len(w.backlog) for w in self._processes) < most:
            order = next(orders, None)
            if order is None:
                return False
            self._processes[self._whose(order)].backlog.append(order)
        return True

    def _whose(self, order: Order) -> int:
        """The process that a URL belongs to: that of its host."""
        if order.url.startswith(LOCAL):
            return order.index % len(self._processes)
        host = order.url.partition("://")[2].partition("/")[0].rpartition("@")[2].lower()
        return zlib.crc32(host.encode("utf-8", "replace")) % len(self._processes)

    def _feed(self, worker: _Process) -> None:
        """Send orders when half of the window is free."""
        if not worker.backlog or len(worker.flying) > self._window // 2:
            return
        room = self._window - len(worker.flying)
        self._send(
            worker, [worker.backlog.popleft() for _ in range(min(room, len(worker.backlog)))]
        )

    def _feed_alone(self) -> None:
        """Send the next suspect to a process that has nothing else to do; end it after the last."""
        if self._alone and self._alone.flying:
            return
        if self._suspects:
            self._alone = self._alone or self._start()
            self._send(self._alone, [self._suspects.popleft()])
        elif self._alone:
            self._ready.unregister(self._alone.pipe)
            self._alone.end()
            self._alone.process.join()
            self._alone = None

    def _send(self, worker: _Process, batch: list[Order]) -> None:
        worker.flying |= {(order.shard, order.index): order for order in batch}
        try:
            worker.pipe.send(batch)
        except OSError:  # it was killed: its pipe tells when it is read
            return

    def _receive(self, worker: _Process) -> None:
        """Take the answers that one process sends together."""
        try:
            message = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            self._replace(worker)
            return
        answers = [Answer(*each) for each in pickle.loads(message)]  # noqa: S301 (our own process)
        orders = [worker.flying.pop((answer.shard, answer.position)) for answer in answers]
        self._keep(orders, answers)

    def _keep(self, orders: list[Order], answers: list[Answer]) -> None:
        self._take(answers)
        for order, answer in zip(orders, answers, strict=True):
            if not order.last:
                self._breaker.add(answer.reason)

    def _replace(self, dead: _Process) -> None:
        """A new process in the place of one that died, with its orders but for the suspects."""
        self._ready.unregister(dead.pipe)
        dead.pipe.close()
        dead.process.join()
        suspects = dead.suspects()
        if not suspects:
            self._restarts += 1
            if self._restarts > RESTARTS:
                raise WitError(
                    "download: a downloading process was killed again and again, perhaps for want"
                    " of memory: lower --fetch.processes or --fetch.connections and run again; what"
                    " was fetched is kept"
                )
        if dead is self._alone:
            self._alone = None
            self._suspects.extend(dead.flying.values())  # it wasn't decoding when it died
            self._keep(suspects, [_given_up(order) for order in suspects])
            return
        self._suspects.extend(suspects)
        fresh = self._start()
        fresh.backlog = deque([*dead.flying.values(), *dead.backlog])
        self._processes[self._processes.index(dead)] = fresh


def _given_up(order: Order) -> Answer:
    """The answer for an image that no process survives."""
    reason = str(Reason.DECODER_CRASH)
    outcome = Outcome(
        order.shard, order.index, status="failed_to_resize", reason=reason, time=time.time()
    )
    return Answer(order.shard, order.index, reason, True, 0, record(outcome, None))
