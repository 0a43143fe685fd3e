"""A downloading process: URLs come in, outcomes and images ready to store go out.

One event loop asks for everything; decoding, scaling and hashing of all but small images happen
in threads beside it, whose work Pillow does without holding the interpreter. The process never
writes a file.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.consent import marked
from pipeline.download import Client, Download
from pipeline.guard import FetchError
from pipeline.ledger import record
from pipeline.local import read_local
from pipeline.store import StoredImage
from pipeline.task import DECODERS, LOCAL, NONE, Answer, Order, Outcome, Task
from wit.image import Header, ImageError, probe, quiet
from wit.schema import Reason

SMALL_PIXELS = 500_000  # of an image that is decoded on the spot
MOST_TEXT = 4096  # characters of a header or URL that are kept
BATCH_BYTES, BATCH_S = 512 * 1024, 0.02  # of answers that go to the parent in one message
# what the last try at the end of the run is for: not for what a server or a file said of itself
LATE = frozenset({Reason.DNS, Reason.TIMEOUT, Reason.CONNECTION, Reason.HTTP_4XX, Reason.HTTP_5XX})
LATE |= {Reason.ROBOTS_TXT, Reason.TOO_MANY_BYTES}


def work(task: Task, pipe: Connection, decoding: Any) -> None:
    """Serve until the parent closes its end: lists of orders in, answers out.

    What is in the hands of a decoder stands in `decoding`, so that the parent knows whom to
    suspect when this process dies of it.
    """
    try:
        with quiet():
            asyncio.run(Worker(task, pipe, decoding).run())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)  # the parent is gone: nobody wants the rest


class Worker:
    """The loop of one process."""

    def __init__(self, task: Task, pipe: Connection, decoding: Any) -> None:
        self._task, self._pipe, self._decoding = task, pipe, decoding
        self._free = list(range(0, len(decoding), 2))  # places in it
        self._sending = threading.Lock()
        self._batch: list[tuple[object, ...]] = []
        self._bytes = 0
        self._pool = ThreadPoolExecutor(DECODERS)
        self._late = False

    async def run(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        orders: asyncio.Queue[list[Order] | None] = asyncio.Queue()
        reader = threading.Thread(target=self._read, args=(loop, orders), daemon=True)
        reader.start()
        async with Client(self._task.limits) as client, asyncio.TaskGroup() as tasks:
            while (batch := await orders.get()) is not None:
                for order in batch:
                    if order.last and not self._late:
                        self._late = True
                        client.later()
                    tasks.create_task(self._serve(client, order))

    def _flush(self) -> None:
        """Send the answers that wait."""
        with self._sending:
            if self._batch:
                self._pipe.send_bytes(pickle.dumps(self._batch, protocol=5))
            self._batch, self._bytes = [], 0

    def _read(
        self, loop: asyncio.AbstractEventLoop, orders: asyncio.Queue[list[Order] | None]
    ) -> None:
        while True:
            try:
                batch = self._pipe.recv()
            except (EOFError, OSError):
                batch = None
            loop.call_soon_threadsafe(orders.put_nowait, batch)
            if batch is None:
                return

    async def _serve(self, client: Client, order: Order) -> None:
        loop = self._loop
        try:
            if order.url.startswith(LOCAL):
                await loop.run_in_executor(self._pool, self._local, order)
                return
            async with client.get(order.url, 0 if order.last else None) as download:
                with self._in_hand(order):
                    header = _header(download.body)
                    small = _is_small(header)
                    if small:  # quicker done than handed over
                        self._store(order, download, header)
                if not small:
                    await loop.run_in_executor(
                        self._pool, self._store_large, order, download, header
                    )
        except FetchError as error:
            outcome = Outcome(
                order.shard,
                order.index,
                reason=str(error.reason),
                final_url=_text(error.where),
                http_status=error.status,
                time=time.time(),
                final=order.last or not (error.passing and error.reason in LATE),
            )
            self._send(outcome, None)

    @contextmanager
    def _in_hand(self, order: Order) -> Iterator[None]:
        """Say which image is being decoded meanwhile."""
        place = self._free.pop()
        self._decoding[place + 1] = order.index
        self._decoding[place] = order.shard
        try:
            yield
        finally:
            self._decoding[place] = NONE
            self._free.append(place)

    def _store_large(self, order: Order, download: Download, header: Header | Reason) -> None:
        with self._in_hand(order):
            self._store(order, download, header)

    def _local(self, order: Order) -> None:
        number, _, path = order.url.removeprefix(LOCAL).partition(":")
        root: Path = self._task.roots[int(number)]
        try:
            body = read_local(root, path, self._task.limits.max_bytes)
        except FetchError as error:
            gone = Outcome(order.shard, order.index, reason=str(error.reason), time=time.time())
            self._send(gone, None)
            return
        with self._in_hand(order):
            self._store(order, Download(body, "", 0), _header(body))

    def _store(self, order: Order, download: Download, header: Header | Reason) -> None:
        """Make an image ready to be stored, and send it."""
        body, headers = download.body, download.headers
        outcome = Outcome(
            order.shard,
            order.index,
            sha256=hashlib.sha256(body).hexdigest(),
            final_url=_text(download.url),
            http_status=download.status or None,
            content_type=_text(headers.get("Content-Type")),
            last_modified=_text(headers.get("Last-Modified")),
            etag=_text(headers.get("ETag")),
            x_robots_tag=_text(headers.get("X-Robots-Tag")),
            bytes=len(body),
            time=time.time(),
        )
        stored: StoredImage | None = None
        if marked(body):
            outcome.reason = str(Reason.OPTED_OUT)
        elif isinstance(header, Reason):
            outcome.status, outcome.reason = "failed_to_resize", str(header)
        else:
            try:
                stored = self._task.storer.store(body, header)
            except ImageError as error:
                outcome.status, outcome.reason = "failed_to_resize", str(error.reason)
        if stored is not None:
            outcome.status = "success"
            outcome.width, outcome.height = stored.size
            outcome.original_width, outcome.original_height = stored.original_size
            outcome.format, outcome.phash = stored.format, stored.phash
        self._send(outcome, stored.data if stored is not None else None)

    def _send(self, outcome: Outcome, image: bytes | None) -> None:
        answer = Answer(
            outcome.shard,
            outcome.index,
            outcome.reason,
            outcome.final,
            outcome.bytes or 0,
            record(outcome, image),
        )
        with self._sending:
            first = not self._batch
            self._batch.append(tuple(answer))
            self._bytes += len(answer.record)
            full = self._bytes > BATCH_BYTES
        if full:
            self._flush()
        elif first:
            self._loop.call_soon_threadsafe(self._loop.call_later, BATCH_S, self._flush)


def _text(given: str | None) -> str | None:
    """What a server said, as text that can be written down: of bounded length, without the lone
    surrogates that stand for bytes that are no UTF-8; null when it said nothing."""
    return given[:MOST_TEXT].encode("utf-8", "replace").decode() if given else None


def _header(body: bytes) -> Header | Reason:
    """What an image says of itself, or why it can't be used."""
    try:
        return probe(body)
    except ImageError as error:
        return error.reason


def _is_small(header: Header | Reason) -> bool:
    """Whether an image is decoded within a few milliseconds."""
    return isinstance(header, Reason) or header.width * header.height < SMALL_PIXELS
