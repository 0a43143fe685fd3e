"""An image that crashes its decoder costs itself and nothing else."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.pool import RESTARTS, Breaker, Pool
from pipeline.store import StoredImage, Storer
from pipeline.task import Answer, FetchLimits, Order, Task
from wit.image import Header
from wit.schema import Reason

from .test_fetch import jpeg

assert RESTARTS < 4  # of the small images that crash below
COMMENT = b"\xff\xfe\x00\x07"  # marker of a comment of five bytes


def with_comment(image: bytes, text: bytes) -> bytes:
    return image[:2] + COMMENT + text + image[2:]


@dataclass(frozen=True)
class Fragile(Storer):
    """Storing as it is, by a decoder that has a bug: some images make it read address 0, one makes
    it need so much memory that the system kills it."""

    def store(self, data: bytes, header: Header | None = None) -> StoredImage:
        if b"crash" in data:
            time.sleep(0.05)  # so that others are under way
            ctypes.string_at(0)
        if b"a lot" in data:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().store(data, header)


@pytest.mark.parametrize(
    ("side", "bad"),
    [(24, {3, 40, 41, 77}), (720, {40, 77})],
    ids=["in the loop", "in a thread"],
)
def test_only_the_images_that_crash_are_given_up(
    tmp_path: Any, web: Any, side: int, bad: set[int]
) -> None:
    plain = jpeg(0, side)
    for i in range(80):
        text = b"a lot" if i == 77 else b"crash" if i in bad else b"sound"
        web.body(f"/{i}.jpg", with_comment(plain, text))
    limits = FetchLimits(connections=16, resolve=(("*.test", web.address),))
    task = Task(limits, (), Fragile(32, 90, 10**8), tmp_path)
    found: list[Answer] = []
    orders = (Order(0, i, f"http://h{i % 5}.test/{i}.jpg") for i in range(80))
    with Pool(task, 2, Breaker(0.5), found.extend) as pool:
        pool.run(orders, lambda: None)
    assert sorted(answer.position for answer in found) == list(range(80))
    crash = str(Reason.DECODER_CRASH)
    assert {answer.position for answer in found if answer.reason == crash} == bad
    assert Counter(answer.reason for answer in found) == {None: 80 - len(bad), crash: len(bad)}
    assert b"failed_to_resize" in next(a.record for a in found if a.position == 77)
    assert max(web.hits.values()) <= 2 + len(bad)  # what was under way when a process died, again
