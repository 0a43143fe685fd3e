"""Manners towards one host: connections at once, requests a second, and a host that is down.

Everything here is local to one event loop. The processes of a download share the hosts between
them (`pipeline.pool`), so a limit per host holds for the whole download.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from pipeline.guard import FetchError
from wit.schema import Reason

STRIKES = 10  # failures in a row without an answer, after which a host is not asked any more
HOSTS = 100_000  # remembered; the idle ones are forgotten first
LONGEST_PAUSE_S = 30.0  # that a host can ask for with Retry-After


class Host:
    """One host: at most `connections` requests at once, `rate` a second (0: any number)."""

    def __init__(self, connections: int, rate: float) -> None:
        self._turns = asyncio.Semaphore(connections)
        self._gap = 1 / rate if rate else 0.0
        self._next = 0.0
        self._failures = 0
        self._last: FetchError | None = None
        self.users = 0

    async def __aenter__(self) -> Host:
        """Wait for a turn.

        Raises:
            FetchError: the host is down, for the reason that it last failed for.
        """
        self.users += 1
        try:
            await self._turns.acquire()
        except asyncio.CancelledError:
            self.users -= 1
            raise
        try:
            self._check()
            await self._wait()
            self._check()  # others may have found out meanwhile
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self.users -= 1
        self._turns.release()

    def _check(self) -> None:
        if self._failures >= STRIKES and self._last is not None:
            raise FetchError(self._last.reason, self._last.passing)

    async def _wait(self) -> None:
        now = time.monotonic()
        mine = max(now, self._next)
        self._next = mine + self._gap
        if mine > now:
            await asyncio.sleep(mine - now)

    def answered(self) -> None:
        """The host answered, whatever it said."""
        self._failures = 0

    def failed(self, error: FetchError) -> None:
        """No answer came; after a few in a row the host counts as down."""
        self._failures, self._last = self._failures + 1, error

    def pause(self, seconds: float) -> None:
        """Leave the host alone for a while, because it asked for that."""
        self._next = max(self._next, time.monotonic() + min(seconds, LONGEST_PAUSE_S))

    def forgive(self) -> None:
        """Ask again, as at first."""
        self._failures = 0


class Hosts:
    """The hosts of one event loop, by name."""

    def __init__(self, connections: int, rate: float) -> None:
        self._limits = connections, rate
        self._hosts: OrderedDict[str, Host] = OrderedDict()

    def __getitem__(self, name: str) -> Host:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = Host(*self._limits)
            while len(self._hosts) > HOSTS and not next(iter(self._hosts.values())).users:
                self._hosts.popitem(last=False)
        self._hosts.move_to_end(name)
        return host

    def forgive(self) -> None:
        """Ask every host again: it is later now."""
        for host in self._hosts.values():
            host.forgive()


WITHOUT_ANSWER = frozenset({Reason.DNS, Reason.TIMEOUT, Reason.CONNECTION, Reason.TLS})
